"""Covers one Python module: its text becomes chunks of functions, methods and classes, by the syntax tree.

It does not cover finding and decoding files (python_source). Functions within functions stay part of the outer one:
they cannot be called from elsewhere, so nobody searches for them alone.
"""

import ast
import warnings
from collections.abc import Iterator

from membudget_engine.ingest.chunk import Chunk, ChunkKind, chunk_id

MAX_DEPENDENCIES = 32
"""Per chunk, the first by name: a generated dispatcher may call thousands."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = _Function | ast.ClassDef


def module_chunks(text: str, path: str) -> list[Chunk]:
    """The chunks of a module's text, in the order of its lines; `path` is relative to the source tree's root.

    Raises SyntaxError, ValueError (null bytes), RecursionError or MemoryError when the text does not parse.
    """
    with warnings.catch_warnings():
        # An invalid escape in a file that we only read is its author's concern.
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    lines = text.split("\n")
    return [_chunk(node, prefix, lines, path) for node, prefix in _definitions_with_prefix(tree)]


def printable(text: str) -> str:
    r"""The text with lone surrogates (from "\ud800" or undecodable file names) escaped: UTF-8 cannot store them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _definitions_with_prefix(tree: ast.Module) -> Iterator[tuple[_Definition, str]]:
    """Each definition with the qualified name of the class around it and a dot, or an empty prefix."""
    pending = [(node, "") for node in reversed(list(_definitions_within(tree)))]
    while pending:
        node, prefix = pending.pop()
        yield node, prefix
        if isinstance(node, ast.ClassDef):
            inner = f"{prefix}{node.name}."
            pending.extend((member, inner) for member in reversed(list(_definitions_within(node))))


def _definitions_within(node: ast.AST) -> Iterator[_Definition]:
    """Definitions directly in a module or class, also under if, try or with, but not within each other.

    A work list, because a chain of a thousand elif nests a thousand deep.
    """
    pending = list(ast.iter_child_nodes(node))[::-1]
    while pending:
        child = pending.pop()
        if isinstance(child, _Definition):
            yield child
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            pending.extend(list(ast.iter_child_nodes(child))[::-1])


def _chunk(node: _Definition, prefix: str, lines: list[str], path: str) -> Chunk:
    name = prefix + node.name
    first = _first_line(node)
    return Chunk(
        id=chunk_id(path, name, first),
        path=path,
        name=name,
        kind=_kind(node, prefix),
        signature=_signature(node),
        docstring=printable(ast.get_docstring(node) or ""),
        dependencies=_dependencies(node),
        source=_class_source(node, lines) if isinstance(node, ast.ClassDef) else _lines_of(node, lines),
        start_line=first,
        end_line=_last_line(node),
    )


def _kind(node: _Definition, prefix: str) -> ChunkKind:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if prefix else "function"


def _first_line(node: _Definition) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _last_line(node: _Definition) -> int:
    return node.lineno if node.end_lineno is None else node.end_lineno


def _lines_of(node: _Definition, lines: list[str]) -> str:
    return "\n".join(lines[_first_line(node) - 1 : _last_line(node)])


def _class_source(node: ast.ClassDef, lines: list[str]) -> str:
    """The class's own lines, in which every member's body is replaced by its signature: members are own chunks."""
    kept: list[str] = []
    position = _first_line(node)
    for member in _definitions_within(node):
        first = _first_line(member)
        kept.extend(lines[position - 1 : first - 1])
        kept.append(f"{' ' * member.col_offset}{_signature(member)}: ...")
        position = _last_line(member) + 1
    kept.extend(lines[position - 1 : _last_line(node)])
    return "\n".join(kept)


def _signature(node: _Definition) -> str:
    if isinstance(node, ast.ClassDef):
        parents = ", ".join(ast.unparse(parent) for parent in [*node.bases, *node.keywords])
        signature = f"class {node.name}({parents})" if parents else f"class {node.name}"
    else:
        keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        signature = f"{keyword} {node.name}({ast.unparse(node.args)}){returns}"
    # unparse may print a default that holds a line end over several lines.
    return printable(" ".join(signature.split("\n")))


def _dependencies(node: _Definition) -> tuple[str, ...]:
    names: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            names.add(_dotted_name(part.func))
        elif isinstance(part, ast.Import):
            names.update(alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            origin = "." * part.level + (part.module or "")
            names.update(f"{origin}.{alias.name}" if part.module else origin + alias.name for alias in part.names)
    return tuple(sorted(names - {""})[:MAX_DEPENDENCIES])


def _dotted_name(called: ast.expr) -> str:
    """`os.path.join` as written; of a call on a value only the attribute; "" for a value called directly."""
    attributes: list[str] = []
    while isinstance(called, ast.Attribute):
        attributes.append(called.attr)
        called = called.value
    if isinstance(called, ast.Name):
        return ".".join([called.id, *reversed(attributes)])
    return attributes[0] if attributes else ""
