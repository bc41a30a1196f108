"""The rules of the house as functions of a source tree: each returns its violations, "file:line: what is wrong"."""

import ast
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

EXTENSION_API = ("jax.extend", "jax.interpreters")
MAY_USE_EXTENSION_API = {"_names/tag.py", "_program/jaxpr.py", "_program/probe.py", "_program/rules.py", "_types.py"}
MAY_READ_EQUATIONS = ("_program/", "_names/tag.py")
MAY_PRINT = {"__main__.py", "_cli/startup.py"}
MAY_BE_IMPORTED = {"jaxgrad", "jax", "jaxlib", "numpy"} | set(sys.stdlib_module_names)
ONLY_WITH = {"pytest_plugin.py": {"pytest"}}  # loaded by what it imports, and by nothing else
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "jaxgrad", "tests", "bench"}

MOST_FILES, MOST_ENTRIES, MOST_LINES = 12, 22, 300  # in a room, at the package's first level, in a file

# Each floor imports from the floors below it only; the rooms of one floor are strangers.
FLOORS = (
    {"__main__"},
    {"_cli"},
    {"__init__"},
    {"pytest_plugin", "reference"},
    {"_document"},
    {"_compare", "_ledger"},
    {"_retain", "_evaluate"},
    {"_program", "neuron"},
    {"_names", "_graph", "_batch"},
    {"_record"},
    {"_errors", "_files", "_text", "_types"},
)

Names = Iterator[tuple[str, int]]


def sources(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        yield path, _parsed(path.read_text(encoding="utf-8"))


@functools.cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)  # once for all rules, none of which changes it


def place(path: Path, package: Path) -> str:
    """A file's path within its package, as "_program/jaxpr.py"."""
    return path.relative_to(package).as_posix()


def modules(package: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Every module by its dotted name within the package; a folder's `__init__` goes by the folder's name."""
    found = {}
    for path, tree in sources(package):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)] = (path, tree)
    return found


def imported(module: ast.AST, package: str, at: str = "") -> Names:
    """Full dotted name and line of everything imported: `from a import b` gives a.b.

    `at` is the dotted place of the folder that a relative import starts from, "" for the package's own.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join([package, *filter(None, at.split("."))][: None if node.level < 2 else 1 - node.level])
            base = ".".join(filter(None, (start if node.level else "", node.module)))
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def arrows(package: Path) -> dict[str, dict[str, int]]:
    """Module -> the package's modules that it imports, inside functions too, and in which line."""
    known = modules(package)
    found: dict[str, dict[str, int]] = {}
    for name, (path, tree) in known.items():
        folder = ".".join(path.relative_to(package).parent.parts)
        targets = ((_own(target, package.name, known), line) for target, line in imported(tree, package.name, folder))
        found[name] = {to: line for to, line in targets if to is not None}
    return found


def import_cycles(package: Path) -> list[str]:
    """Cycles among the package's modules, imports inside functions included."""
    try:
        TopologicalSorter(arrows(package)).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def arrows_that_point_up(package: Path) -> list[str]:
    """Imports of a room on the same floor or above, and rooms that are on no floor."""
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for name, targets in arrows(package).items():
        room = name.partition(".")[0]
        if room not in floor:
            found.append(f"{room} is on no floor")
            continue
        for target, line in targets.items():
            other = target.partition(".")[0]
            if other != room and floor.get(other, -1) <= floor[room]:
                found.append(f"{name}:{line}: imports {target}, which is not below {room}")
    return sorted(set(found))


def reading_equations(package: Path) -> list[str]:
    """Where JAX's equations are read by a file that is not meant to: `.eqns`, `.primitive`, `eqn.params`."""
    return sorted(
        {
            f"{where}:{node.lineno}: reads .{node.attr}"
            for path, tree in sources(package)
            if not (where := place(path, package)).startswith(MAY_READ_EQUATIONS)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and (node.attr in ("eqns", "primitive") or _is_params_of_eqn(node))
        }
    )


def _is_params_of_eqn(node: ast.Attribute) -> bool:
    return node.attr == "params" and isinstance(node.value, ast.Name) and node.value.id in ("eqn", "equation", "e")


def _own(target: str, package: str, known: Mapping[str, object]) -> str | None:
    """The package's module that a dotted name belongs to, if any."""
    first, _, rest = target.partition(".")
    if first != package:
        return None
    while rest and rest not in known:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


def names_used(module: ast.Module, package: str) -> Names:
    """Dotted names that a module uses in any spelling: imports, attributes, getattr, and names in strings."""
    aliases: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            aliases |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    prose = {id(n.value) for n in ast.walk(module) if isinstance(n, ast.Expr)}
    yield from imported(module, package)
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value, node.lineno
        elif dotted := _dotted(node, aliases):
            yield dotted, node.lineno


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str | None:
    match node:
        case ast.Name(id=name):
            return aliases.get(name)
        case ast.Attribute(value=value, attr=attr):
            base = _dotted(value, aliases)
        case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(attr)), *_]):
            base = _dotted(value, aliases)
        case _:
            return None
    return base and f"{base}.{attr}"


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def uses_of(package: Path, *modules: str, allowed: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """Where the package uses one of the modules, in a file that is not allowed to."""
    return sorted(
        {
            f"{place(path, package)}:{line}: uses {module}"
            for path, tree in sources(package)
            if place(path, package) not in allowed
            for name, line in names_used(tree, package.name)
            for module in modules
            if _within(name, module)
        }
    )


def printing_or_exiting(package: Path) -> list[str]:
    """Where a file other than the command line prints, writes to a standard stream, or exits."""
    speaks = ("sys.stdout", "sys.stderr", "sys.exit", "os._exit", "os.abort", "sys.__stdout__", "sys.__stderr__")
    found = set()
    for path, tree in sources(package):
        if place(path, package) in MAY_PRINT:
            continue
        for name, line in names_used(tree, package.name):
            found |= {f"{place(path, package)}:{line}: uses {word}" for word in speaks if _within(name, word)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in ("print", "exit", "quit", "SystemExit"):
                found.add(f"{place(path, package)}:{node.lineno}: uses {node.id}")
    return sorted(found)


def foreign_imports(package: Path) -> list[str]:
    """Module-level imports of what is no runtime dependency; inside a function they may stand."""
    return sorted(
        f"{place(path, package)}:{line}: imports {name}"
        for path, tree in sources(package)
        for node in _outside_functions(tree)
        for name, line in imported(node, package.name)
        if name.partition(".")[0] not in MAY_BE_IMPORTED | ONLY_WITH.get(place(path, package), set())
    )


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Every import statement that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _outside_functions(child)


def private_or_extra_in_init(package: Path) -> list[str]:
    """What `__init__.py` holds beside the public names, their homes and `__version__`, and where these differ."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    found: list[str] = []
    seen: dict[str, str] = {}  # by type checkers
    home: dict[str, str] = {}  # when it runs
    public: list[str] = []
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Import(names=[ast.alias(name="importlib")]) | ast.ImportFrom(module="typing"):
                pass
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str())):
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List()):
                public = ast.literal_eval(statement.value)
            case ast.Assign(targets=[ast.Name(id="_HOME")], value=ast.Dict()):
                home = ast.literal_eval(statement.value)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                seen = {name: place for part in statement.body for name, place in _homes(part, package.name)}
                found += [_extra(part) for part in statement.body if not list(_homes(part, package.name))]
                found += [_extra(part) for part in statement.orelse if not _is_lookup(part)]
            case _:
                found.append(_extra(statement))
    names = {*public} - {"__version__"}
    found += [f"__init__.py: {name} is private" for name in public if name.startswith("_") and name in names]
    found += [
        f"__init__.py: {name} is not alike in __all__, in _HOME and among the imports"
        for name in sorted(names | {*home} | {*seen})
        if name not in names or home.get(name) is None or home.get(name) != seen.get(name)
    ]
    return found


def _homes(statement: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Name and module within the package of what an import statement binds."""
    if isinstance(statement, ast.ImportFrom) and _within(statement.module or "", package):
        module = (statement.module or "").removeprefix(package).removeprefix(".")
        yield from ((alias.asname or alias.name, module or alias.name) for alias in statement.names)


def _is_lookup(statement: ast.AST) -> bool:
    return isinstance(statement, ast.FunctionDef) and statement.name in ("__getattr__", "__dir__")


def _extra(statement: ast.stmt) -> str:
    return f"__init__.py:{statement.lineno}: is no public name: {ast.unparse(statement)}"


def crowded(package: Path) -> list[str]:
    """Rooms with more files than are read at a glance, files with more lines than are read at a sitting."""
    found = []
    for room in sorted({path.parent for path in package.rglob("*.py")} - {package}):
        files = [path for path in room.glob("*.py") if path.name != "__init__.py"]
        if len(files) > MOST_FILES:
            found.append(f"{place(room, package)} has {len(files)} files, and {MOST_FILES} at most are meant")
    if len(rooms := [path for path in package.iterdir() if path.name != "__pycache__"]) > MOST_ENTRIES:
        found.append(f"{package.name} has {len(rooms)} entries, and {MOST_ENTRIES} at most are meant")
    for path, _ in sources(package):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            found.append(f"{place(path, package)} has {lines} lines, and {MOST_LINES} at most are meant")
    return found


def stray_at_top_level(root: Path) -> list[str]:
    """What stands at the top beside what belongs there, dotfiles, and what git ignores."""
    ignored = [line.rstrip("/") for line in (root / ".gitignore").read_text(encoding="utf-8").split()]
    names = sorted(path.name for path in root.iterdir())
    return [
        name
        for name in names
        if name not in TOP_LEVEL and not name.startswith(".") and not any(fnmatch(name, p) for p in ignored)
    ]


def namesakes(tests: Path) -> list[str]:
    """Test files of one name in two rooms: pytest imports a test file by its name alone, so the second one fails."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        rooms.setdefault(path.name, []).append(place(path, tests))
    return [f"{' and '.join(paths)} have one name" for paths in rooms.values() if len(paths) > 1]


RULES: dict[str, Callable[[Path], list[str]]] = {
    "the modules import one another without a cycle": import_cycles,
    "each floor imports from the floors below it": arrows_that_point_up,
    "JAX's equations are read in _program and _names/tag only": reading_equations,
    "jax._src is used nowhere": lambda package: uses_of(package, "jax._src", "_src"),
    "the extension API is used in few files": lambda package: uses_of(
        package, *EXTENSION_API, allowed=MAY_USE_EXTENSION_API
    ),
    "only the command line prints and exits": printing_or_exiting,
    "only runtime dependencies are imported": foreign_imports,
    "__init__.py holds public names and nothing else": private_or_extra_in_init,
    "rooms and files are small": crowded,
}
