"""Commit history from real repositories, hostile ones among them, and without git."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from engine.engine_process import EngineProcess, wait_until
from membudget_engine.build_command import build_sources
from membudget_engine.caches.history_cache import FileHistory, HistoryCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import FileMissing, HistoryUnavailable
from membudget_engine.stores.commit_log import MOST_COMMITS, TEXT_CHARACTERS, CommitLog
from membudget_engine.stores.source_tree import SourceTree
from membudget_runtime.memory_runtime import MemoryRuntime

AUTHOR = {"GIT_AUTHOR_NAME": "A. Author", "GIT_AUTHOR_EMAIL": "a@example.com",
          "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.com",
          "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}  # fmt: skip


def git(root: Path, *arguments: str, **environment: str) -> str:
    """What git says in this folder."""
    argv = ["git", "-c", "init.defaultBranch=main", *arguments]
    env = {**os.environ, **AUTHOR, **environment}
    return subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path, subject: str, at: int = 1_700_000_000) -> str:
    """Commit everything; its id."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", subject, GIT_AUTHOR_DATE=f"{at} +0000")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two source files, one of them changed three times."""
    root = tmp_path / "tree"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "other.py").write_text("def other():\n    return 0\n")
    for number in range(3):
        (root / "changed.py").write_text(f"def changed():\n    return {number}\n")
        commit(root, f"change {number}", 1_700_000_000 + number)
    return root


@pytest.fixture
def opened(root: Path, tmp_path: Path) -> Iterator[Collection]:
    """The collection built from it."""
    build_sources(tmp_path / "data", [f"core={root}"])
    with closing(Catalog(open_collections(tmp_path / "data", HashingEmbedder()))) as catalog:
        yield catalog.collections["core"]


@pytest.fixture
def histories(runtime: MemoryRuntime, root: Path) -> HistoryCache:
    """Empty."""
    return HistoryCache(runtime, {"core": SourceTree(root)}, CommitLog())


def _history(histories: HistoryCache, opened: Collection, path: str) -> FileHistory:
    return msgspec.json.decode(histories.history(opened, path), type=FileHistory)


def test_a_file_has_its_own_commits_newest_first(histories: HistoryCache, opened: Collection, root: Path) -> None:
    """R-E08: loaded on demand from git, then from memory."""
    history = _history(histories, opened, "changed.py")

    assert [each.subject for each in history.commits] == ["change 2", "change 1", "change 0"]
    assert (history.commits[0].id, history.commits[0].author) == (git(root, "rev-parse", "HEAD"), "A. Author")
    assert history.commits[0].at == 1_700_000_002
    assert [each.subject for each in _history(histories, opened, "other.py").commits] == ["change 0"]

    shutil.rmtree(root / ".git")
    assert _history(histories, opened, "changed.py") == history
    assert (histories.kept.counters.hits, len(histories.kept)) == (1, 2)


def test_history_is_bounded_by_the_bytes_of_its_component(tmp_path: Path, root: Path, opened: Collection) -> None:
    """R-E08: a fifth of the total; what is over it is answered and not kept."""
    with closing(MemoryRuntime(tmp_path / "state", {"MEMBUDGET_TOTAL": "64Ki"})) as runtime:
        histories = HistoryCache(runtime, {"core": SourceTree(root)}, CommitLog())
        for _ in range(3):
            assert len(_history(histories, opened, "changed.py").commits) == 3
        assert histories.kept.owned_bytes() <= runtime.ledger.bounds.ceilings["historyCache"]


def test_a_file_that_was_not_indexed_has_no_history(histories: HistoryCache, opened: Collection, root: Path) -> None:
    """R-E08: of indexed source files only; git is not asked."""
    (root / "later.py").write_text("def later(): ...\n")
    commit(root, "later")

    for path in ("later.py", "../tree/changed.py", "missing.py", "\ud800.py", "README"):
        with pytest.raises(FileMissing):
            histories.history(opened, path)


@pytest.mark.parametrize("name", ["-n1.py", "--output=x.py", ":(top)a.py", "*.py", "a b\n.py", "ä.py", "$(touch x).py"])
def test_a_hostile_name_is_a_name(tmp_path: Path, root: Path, name: str) -> None:
    """R-E08: never an option, a pattern, or a command."""
    (root / name).write_text("def hostile(): ...\n")
    commit(root, "hostile")

    commits = CommitLog().commits(root, SourceTree(root).file(name))

    assert [each.subject for each in commits] == ["hostile"]
    assert not (root / "x").exists()
    assert not (tmp_path / "x").exists()


def _sign_badly(root: Path) -> None:
    """Let the newest commit be one with a signature, which git checks with a program when it is asked to."""
    plain = git(root, "cat-file", "commit", "HEAD")
    head, _, text = plain.partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n bad\n -----END PGP SIGNATURE-----"
    (root.parent / "signed").write_text(f"{head}\n{signature}\n\n{text}\n")
    git(root, "reset", "--soft", git(root, "hash-object", "-t", "commit", "-w", str(root.parent / "signed")))


def test_a_repository_cannot_make_git_run_its_programs(root: Path, tmp_path: Path) -> None:
    """R-E08: monitors, pagers, signatures, external diffs, hooks: all named in its configuration, none is run."""
    _sign_badly(root)
    ran = tmp_path / "ran"
    program = root / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    settings = {"core.fsmonitor": program, "core.pager": program, "gpg.program": program, "diff.external": program,
                "log.showSignature": "true", "core.hooksPath": root, "core.sshCommand": program,
                "pager.log": "true", "alias.log": f"!{program}", "log.diffMerges": "on"}  # fmt: skip
    for setting, value in settings.items():
        git(root, "config", setting, str(value))

    commits = CommitLog().commits(root, root / "changed.py")

    assert (len(commits), ran.exists()) == (3, False)


def test_a_long_history_is_cut_and_so_are_long_texts(root: Path) -> None:
    """R-E08: bounded output."""
    for number in range(MOST_COMMITS + 5):
        (root / "changed.py").write_text(f"A = {number}\n")
        commit(root, f"{number} " + "x" * 5000)

    commits = CommitLog().commits(root, root / "changed.py")

    assert len(commits) == MOST_COMMITS
    assert commits[0].subject.startswith(f"{MOST_COMMITS + 4} xxx")
    assert {len(each.subject) for each in commits} == {TEXT_CHARACTERS}


def _program(folder: Path, script: str) -> str:
    file = folder / "git"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_without_git_there_is_a_typed_error(root: Path, tmp_path: Path) -> None:
    """R-E08: and it says what to do."""
    with pytest.raises(HistoryUnavailable, match="install git"):
        CommitLog(str(tmp_path / "nothing")).commits(root, root / "changed.py")


def test_a_tree_that_is_no_repository_says_so(tmp_path: Path) -> None:
    """R-E08: git's own first line, without its advice."""
    with pytest.raises(HistoryUnavailable, match=r"fatal: not a git repository"):
        CommitLog().commits(tmp_path, tmp_path / "a.py")


def test_a_git_that_takes_too_long_is_ended(root: Path, tmp_path: Path) -> None:
    """R-E08: with whatever it holds."""
    told = tmp_path / "pid"
    slow = _program(tmp_path, f"echo $$ > {told}; exec sleep 60")

    with pytest.raises(HistoryUnavailable, match=r"longer than 0\.2 s"):
        CommitLog(slow, seconds=0.2).commits(root, root / "changed.py")

    wait_until(lambda: not Path(f"/proc/{told.read_text().strip()}").exists())


def test_a_git_that_writes_without_end_is_ended(root: Path, tmp_path: Path) -> None:
    """R-E08: at a megabyte."""
    with pytest.raises(HistoryUnavailable, match="longer than 1048576 bytes"):
        CommitLog(_program(tmp_path, "exec cat /dev/zero")).commits(root, root / "changed.py")


def test_an_engine_serves_history_and_says_why_there_is_none(root: Path, tmp_path: Path) -> None:
    """R-E08: over HTTP; a repository that vanished is a 503 that can be tried again."""
    build_sources(tmp_path / "data", [f"core={root}"])
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--source", f"core={root}"]) as engine:
        engine.wait_until_serving()
        reply = engine.ask("GET", "/v1/history/core/changed.py")
        assert [each["subject"] for each in reply.json()["commits"]] == ["change 2", "change 1", "change 0"]
        assert engine.ask("GET", "/v1/history/core/missing.py").json()["reason"] == "FileMissing"
        shutil.rmtree(root / ".git")
        refused = engine.ask("GET", "/v1/history/core/other.py")
        assert (refused.status, refused.json()["reason"]) == (503, "HistoryUnavailable")
        assert "Traceback" not in engine.log
