"""The rules of the house as functions of a source tree: each returns its violations, "file:line: what is wrong"."""

import ast
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

EXTENSION_API = ("jax.extend", "jax.interpreters")
MAY_USE_EXTENSION_API = {"tags.py", "jaxpr.py"}
MAY_PRINT = {"__main__.py"}
MAY_BE_IMPORTED = {"jaxgrad", "jax", "jaxlib", "numpy"} | set(sys.stdlib_module_names)
ONLY_WITH = {"pytest_plugin.py": {"pytest"}}  # loaded by what it imports, and by nothing else
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "jaxgrad", "tests", "bench"}

Names = Iterator[tuple[str, int]]


def sources(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(module: ast.AST, package: str) -> Names:
    """Full dotted name and line of everything imported: `from a import b` gives a.b."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # The package is flat: a relative import of any of its modules starts at the package.
            base = ".".join(filter(None, (package if node.level else "", node.module)))
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def import_cycles(package: Path) -> list[str]:
    """Cycles among the package's modules, imports inside functions included."""
    modules = {path.stem: tree for path, tree in sources(package)}
    arrows = {
        name: {to for target, _ in imported(tree, package.name) if (to := _own(target, package.name, modules))}
        for name, tree in modules.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def _own(target: str, package: str, modules: dict[str, ast.Module]) -> str | None:
    """The package's module that a dotted name belongs to, if any."""
    first, _, rest = target.partition(".")
    if first != package:
        return None
    module = rest.partition(".")[0]
    return module if module in modules else "__init__"


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
            f"{path.name}:{line}: uses {module}"
            for path, tree in sources(package)
            if path.name not in allowed
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
        if path.name in MAY_PRINT:
            continue
        for name, line in names_used(tree, package.name):
            found |= {f"{path.name}:{line}: uses {word}" for word in speaks if _within(name, word)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in ("print", "exit", "quit", "SystemExit"):
                found.add(f"{path.name}:{node.lineno}: uses {node.id}")
    return sorted(found)


def foreign_imports(package: Path) -> list[str]:
    """Module-level imports of what is no runtime dependency; inside a function they may stand."""
    return sorted(
        f"{path.name}:{line}: imports {name}"
        for path, tree in sources(package)
        for node in _outside_functions(tree)
        for name, line in imported(node, package.name)
        if name.partition(".")[0] not in MAY_BE_IMPORTED | ONLY_WITH.get(path.name, set())
    )


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Every import statement that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _outside_functions(child)


def private_or_extra_in_init(package: Path) -> list[str]:
    """What `__init__.py` holds beside a docstring, imports of public names, `__version__` and `__all__`."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    found, bound, public = [], {"__version__"}, []
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.ImportFrom(module=str(module)) if _within(module, package.name):
                bound |= {alias.asname or alias.name for alias in statement.names}
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str())):
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=elements)):
                public = [ast.literal_eval(element) for element in elements]
            case _:
                found.append(f"__init__.py:{statement.lineno}: is no public name: {ast.unparse(statement)}")
    private = [name for name in public if name.startswith("_") and name != "__version__"]
    found += [f"__init__.py: {name} is private" for name in private]
    found += [f"__init__.py: {name} is not both imported and in __all__" for name in sorted(bound ^ set(public))]
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


RULES: dict[str, Callable[[Path], list[str]]] = {
    "the modules import one another without a cycle": import_cycles,
    "jax._src is used nowhere": lambda package: uses_of(package, "jax._src", "_src"),
    "the extension API is used in two files": lambda package: uses_of(
        package, *EXTENSION_API, allowed=MAY_USE_EXTENSION_API
    ),
    "only the command line prints and exits": printing_or_exiting,
    "only runtime dependencies are imported": foreign_imports,
    "__init__.py holds public names and nothing else": private_or_extra_in_init,
}
