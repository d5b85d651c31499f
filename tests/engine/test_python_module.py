"""How one module is cut into chunks."""

from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.ingest.chunk import chunk_id
from membudget_engine.ingest.python_module import MAX_DEPENDENCIES, module_chunks, printable

_MODULE = '''\
import os

@decorated
def outer(a, *, b: int = 1) -> str:
    """Says what it does."""
    def inner(): pass
    return os.path.join(str(a), helper()(b))

class Shape(Base, metaclass=Meta):
    """A shape."""

    sides = 4

    @property
    def area(self) -> float:
        return self.compute().real

    async def draw(self): await paint()

    class Corner:
        def angle(self): return 90

if os.name == "nt":
    def outer(): from . import nt; import ntpath
'''


def test_functions_classes_and_methods_become_chunks_with_qualified_names_and_kinds() -> None:
    """R-E15: one chunk for each thing a person may look for."""
    chunks = module_chunks(_MODULE, "shapes.py")

    assert [(chunk.name, chunk.kind, chunk.start_line, chunk.end_line) for chunk in chunks] == [
        ("outer", "function", 3, 7),
        ("Shape", "class", 9, 21),
        ("Shape.area", "method", 14, 16),
        ("Shape.draw", "method", 18, 18),
        ("Shape.Corner", "class", 20, 21),
        ("Shape.Corner.angle", "method", 21, 21),
        ("outer", "function", 24, 24),
    ]


def test_a_function_carries_signature_docstring_dependencies_and_source_with_decorators() -> None:
    """R-E15: id, path, name, signature, docstring, dependencies."""
    outer = module_chunks(_MODULE, "shapes.py")[0]

    assert outer.signature == "def outer(a, *, b: int=1) -> str"
    assert outer.docstring == "Says what it does."
    assert outer.dependencies == ("helper", "os.path.join", "str")
    assert "\n".join(_MODULE.split("\n")[2:7]) == outer.source
    assert chunk_id("shapes.py", "outer", 3) == outer.id


def test_a_class_keeps_its_own_lines_and_the_signatures_of_its_members() -> None:
    """R-E15: bodies of methods are stored once, in their own chunks."""
    shape = module_chunks(_MODULE, "shapes.py")[1]

    assert shape.signature == "class Shape(Base, metaclass=Meta)"
    assert shape.source == (
        'class Shape(Base, metaclass=Meta):\n    """A shape."""\n\n    sides = 4\n\n'
        "    def area(self) -> float: ...\n\n    async def draw(self): ...\n\n    class Corner: ..."
    )


def test_imports_within_a_function_are_dependencies() -> None:
    """R-E15: names imported or called."""
    assert module_chunks(_MODULE, "shapes.py")[-1].dependencies == (".nt", "ntpath")


def test_dependencies_are_bounded() -> None:
    """R-E15: a generated function that calls a thousand names stays a small chunk."""
    calls = "\n".join(f"    name_{number:04}()" for number in range(1000))

    dependencies = module_chunks(f"def f():\n{calls}\n", "a.py")[0].dependencies

    assert tuple(f"name_{number:04}" for number in range(MAX_DEPENDENCIES)) == dependencies


def test_a_signature_with_a_line_end_in_a_default_is_one_line() -> None:
    """R-E15: a signature is shown on one line."""
    signature = module_chunks("def f(a=f'''x\n{y}'''): pass", "a.py")[0].signature

    assert "\n" not in signature


def test_a_docstring_with_a_lone_surrogate_can_be_stored() -> None:
    """R-E15: UTF-8 has no lone surrogates."""
    docstring = module_chunks(r'def f(): "half \ud800"', "a.py")[0].docstring

    assert docstring == "half \\ud800"


def test_invalid_escapes_in_a_module_warn_nobody() -> None:
    """R-E15: warnings are errors in this suite, so a leak fails here."""
    assert len(module_chunks(r"def f(): return '\d'", "a.py")) == 1


def test_a_chain_of_a_thousand_branches_is_cut() -> None:
    """R-E15: elif nests in the syntax tree; walking it must not recurse."""
    branches = "".join(f"elif x == {number}:\n    def f{number}(): pass\n" for number in range(900))

    assert len(module_chunks(f"if x:\n    def f(): pass\n{branches}", "a.py")) == 901


@given(st.text(st.characters()))
def test_printable_text_can_be_encoded_and_stays_when_it_could_before(text: str) -> None:
    """R-E15: only lone surrogates change."""
    encoded = printable(text).encode()

    assert (encoded == text.encode("utf-8", "surrogatepass")) == all(not 0xD800 <= ord(c) <= 0xDFFF for c in text)
