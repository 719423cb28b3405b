"""Identify the code that computes a number, so that a record tells whether it would still come out the same.

The unit is a *definition*: a top-level function, class or assignment of a module. The hash of an object
covers the definition it comes from and every definition of this project that one names, directly or through
others. Docstrings, comments, texts of errors, annotations, import lines and the files that definitions lie in
do not count: rewording or moving code changes no hash, changing what it does changes the hash of all that use
it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from bench.files.live import (
    HOOKS,
    attributes,
    code_parts,
    code_text,
    codes_in,
    held_by,
    is_live,
    is_users,
    named_by,
    read_live,
)
from bench.files.neighbours import folder_of, used_files
from bench.files.whose import TENSORS, is_own, may_be_users, module_of, users_file

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds the project's import packages."""


Address = tuple[str, str]
"""A definition: (dotted module, top-level name); the name ``*`` stands for all of a module."""


@dataclass(frozen=True)
class Module:
    """What a source file defines.

    Attributes:
        definitions: statements that bind a top-level name, by name.
        effects: top-level statements that bind none, such as calls.
        imports: name -> (module, attribute, or None for the module itself), of the whole file.
    """

    definitions: Mapping[str, Sequence[ast.stmt]]
    effects: Sequence[ast.stmt]
    imports: Mapping[str, tuple[str, str | None]]

    @classmethod
    def parse(cls, source: bytes, name: str, *, is_package: bool = False) -> Module:
        """Return what the source of module ``name`` defines."""
        tree = ast.parse(source)
        definitions: dict[str, list[ast.stmt]] = {}
        effects: list[ast.stmt] = []
        for statement in tree.body:
            if isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement):
                continue
            bound = list(dict.fromkeys(_bound_names(statement)))
            for one in bound:
                definitions.setdefault(one, []).append(statement)
            if not bound and not _for_types_only(statement):
                effects.append(statement)
        imports = dict(_imports(tree, name, is_package=is_package))
        return cls(definitions, effects, imports)


def code_hash(*objects: object) -> str:
    """Return a hash of the code that some objects are made of, 16 hex digits.

    Args:
        objects: functions, classes, modules or instances; of an instance, the classes and functions found in
            its attributes count too, as a network counts with all its layers.

    The project's own code counts by definitions; a user's file counts whole, with the files beside it that it
    imports, and so does the package of a plugin, each together with what it imports of the project; other
    installed packages count by their versions. What a notebook or a script defines counts by itself with what
    it names, see `bench.files.live`.
    """
    digests, _ = closure(*objects)
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()[:16]


def closure(*objects: object) -> tuple[set[str], set[Address]]:
    """Return (digests of all code that some objects are made of, the project's definitions among it)."""
    digests: set[str] = set()
    waiting: list[Address] = []
    others: set[str] = set()
    for part in _with_live_code(_parts(objects), digests):
        module = module_of(part)
        if is_own(module):
            waiting.append(_address_of(part))
        elif module not in others:
            others.add(module)  # it counts whole, whatever part of it was found
            theirs, used = _foreign(part)
            digests |= theirs
            waiting += used
    seen: set[Address] = set()
    while waiting:
        address = waiting.pop()
        if address not in seen:
            seen.add(address)
            own, named = _visit(address)
            digests |= own
            waiting += named
    return digests, {address for address in seen if address[1] != "*"}


def _with_live_code(parts: Iterable[Any], digests: set[str]) -> Iterator[Any]:
    """Yield the parts that have files, and what live ones name of such; add the digests of these."""
    for part in parts:
        if is_live(part):
            digest, named = read_live(part)
            digests.add(digest)
            yield from named
        else:
            yield part


@functools.cache
def _visit(address: Address) -> tuple[frozenset[str], tuple[Address, ...]]:
    """Return (digests of a definition of the project, the definitions it names)."""
    name, attribute = address
    file = _file_of(name)
    if file is None:
        return frozenset(), ()
    module = _read(file, name)
    if attribute == "*":
        imported = [_followed(*target, []) for target in module.imports.values()]
        own = [one for one in imported if is_own(one[0])]
        return frozenset(), (*((name, one) for one in module.definitions), *own)
    if attribute not in module.definitions:
        target = module.imports.get(attribute)
        return frozenset(), (_followed(*target, []),) if target else ()
    digests: set[str] = set()
    named: list[Address] = []
    for statement in (*module.definitions[attribute], *module.effects):
        digests.add(_digest(statement))
        for reference in _references(statement, name, module):
            if is_own(reference[0]):
                named.append(reference)
            else:
                digests.add(".".join(reference))
    return frozenset(digests), tuple(named)


def _references(statement: ast.stmt, name: str, module: Module) -> Iterator[Address]:
    """Yield what a statement names: definitions of its own module, and whatever is imported.

    Types in annotations are among them: the methods of an argument are code that runs.
    """
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = _raised(waiting.pop())
        chain: list[str] = []
        base = node
        while isinstance(base, ast.Attribute):
            chain.insert(0, base.attr)
            base = base.value
        if isinstance(base, ast.Name):
            if base.id in module.imports:
                yield _followed(*module.imports[base.id], chain)
            elif base.id in module.definitions:
                yield name, base.id
        else:
            waiting += ast.iter_child_nodes(node)


def _followed(module: str, attribute: str | None, chain: list[str]) -> Address:
    """Return what a chain of attributes of an import leads to: ``import a.b`` and ``a.b.c`` to c of a.b."""
    names = ([attribute] if attribute else []) + chain
    if not is_own(module):
        return module, ".".join(names)
    while names and not _binds(module, names[0]) and _file_of(f"{module}.{names[0]}") is not None:
        module = f"{module}.{names.pop(0)}"
    return module, names[0] if names else "*"


def _binds(module: str, name: str) -> bool:
    """Return whether a module's own code binds a name, which then hides a submodule so called."""
    file = _file_of(module)
    found = None if file is None else _read(file, module)
    return found is not None and (name in found.definitions or name in found.imports)


def _parts(objects: Iterable[object]) -> list[Any]:
    """Return the functions, classes and modules that some objects are made of."""
    return [one for one in walk(objects, code=False) if isinstance(one, FunctionType | type | ModuleType)]


def walk(objects: Iterable[object], *, code: bool = True) -> Iterator[object]:
    """Yield some objects and all that they hold: attributes, items, layers, what closures keep; each once.

    Args:
        objects: where to begin.
        code: whether what users' classes and functions hold and name counts too: attributes of classes and
            globals, such as a network that a method calls.
    """
    seen: dict[int, object] = {}
    waiting = list(objects)
    while waiting:
        one: Any = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one  # kept alive, so that no other object gets its id
        yield one
        waiting += _held_by(one)
        if code and isinstance(one, FunctionType | type) and is_users(one):
            waiting += (held for held in named_by(one) if not _is_anothers(held))


def _held_by(one: Any) -> list[object]:
    """Return what an object holds."""
    if isinstance(one, functools.partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, MethodType):
        return [one.__func__, one.__self__]
    if isinstance(one, FunctionType):
        return list(held_by(one))
    if isinstance(one, type | ModuleType):
        return []
    if parts := code_parts(one):
        return list(parts)
    if isinstance(one, Mapping | list | tuple | set | frozenset | deque):
        whose = [type(one)] if is_users(type(one)) else []
        return [*whose, *(one.values() if isinstance(one, Mapping) else one), *attributes(one).values()]
    if type(one).__module__.partition(".")[0] in TENSORS:
        # Of a library's layer the weights and the layers inside, which may be the project's, and the hooks.
        held = (getattr(one, name, None) or {} for name in ("_modules", "_parameters", "_buffers", *HOOKS))
        return [each for some in held for each in some.values()]
    found = attributes(one)
    return [type(one), *found.values()] if found or hasattr(one, "__dict__") else []


def _is_anothers(part: object) -> bool:
    """Return whether a part is code that no user wrote: its own globals are nobody's weights."""
    if not isinstance(part, FunctionType | type):
        return isinstance(part, ModuleType)
    return not is_users(part)


def edited_files(objects: Iterable[object]) -> list[Path]:
    """Return the users' files that functions of some objects came from and that say something else by now.

    The code hash is that of the files, and would name code that does not run.
    """
    known: dict[Path, set[str]] = {}
    found: set[Path] = set()
    for one in walk(objects):
        if not isinstance(one, FunctionType) or (file := _compiled_file(one)) is None:
            continue
        if file not in known:
            known[file] = codes_in(file.read_bytes(), file)
        if code_text(one.__code__) not in known[file]:
            found.add(file)
    return sorted(found)


def _compiled_file(function: FunctionType) -> Path | None:
    """Return the user's file that a function is the code of, None where a tool rewrote it on the way."""
    file = None if is_live(function) else users_file(function)
    loader = getattr(sys.modules.get(function.__module__), "__loader__", None)
    if getattr(type(loader), "source_to_code", None) is not SourceFileLoader.source_to_code:
        return None
    return file if file and file.is_file() and function.__code__.co_filename == str(file) else None


def users_parts(objects: Iterable[object]) -> tuple[object, ...]:
    """Return the functions, classes and modules of users' files and plugins that some objects are made of."""
    return tuple(one for one in _parts(objects) if not is_live(one) and users_file(one))


def _address_of(part: Any) -> Address:
    """Return the project's definition that a function, class or module is, or that it is written in."""
    module = module_of(part)
    file = _file_of(module)
    if file is None or isinstance(part, ModuleType):
        return module, "*"
    definitions = _read(file, module).definitions
    name = str(part.__qualname__).partition(".")[0]
    if name == "<lambda>":
        line = part.__code__.co_firstlineno
        around = (
            n for n, found in definitions.items() for s in found if s.lineno <= line <= (s.end_lineno or 0)
        )
        name = next(around, "*")
    return module, name if name in definitions else "*"


def _foreign(part: Any) -> tuple[set[str], list[Address]]:
    """Return (digests, definitions of the project that are used) of code that is not the project's."""
    module = module_of(part)
    top = module.partition(".")[0]
    if not may_be_users(module):
        return set(), []
    files = _foreign_files(module, part)
    digests = set() if files else {_version_of(top)}
    used: list[Address] = []
    for file in files:
        source = file.read_bytes()
        try:
            body = ast.parse(source).body
        except SyntaxError:  # what imports it goes on without it
            digests.add(hashlib.sha256(source).hexdigest())
            continue
        digests.add(_digest(*body, whole=True))
        parsed = Module.parse(source, module)
        used += [one for line in body for one in _references(line, module, parsed) if is_own(one[0])]
    return digests, used


def _foreign_files(module: str, part: Any) -> list[Path]:
    """Return the files of the user's own module, with those beside it that it uses, or of a plugin's package.

    None of a library.
    """
    own = users_file(part)
    if own is None:
        return []
    file, folder = own.resolve(), folder_of(module)  # of a link, what lies beside the file itself
    folders = getattr(sys.modules.get(module.partition(".")[0]), "__path__", None)
    if folder is not None or folders is None:
        return used_files(file, folder or file.parent)
    return sorted(file for folder in folders for file in Path(folder).rglob("*.py"))


@functools.cache
def _version_of(package: str) -> str:
    for distribution in importlib.metadata.packages_distributions().get(package, ()):
        return f"{distribution} {importlib.metadata.version(distribution)}"
    return package


@functools.cache
def _file_of(module: str) -> Path | None:
    """Return the file of one of the project's modules, None where there is no such module."""
    base = ROOT.joinpath(*module.split("."))
    # A stub says where the names of a package live that imports them when they are first used.
    for file in (base.with_suffix(".py"), base / "__init__.pyi", base / "__init__.py"):
        if file.is_file():
            return file
    return None


@functools.cache
def _read(file: Path, name: str) -> Module:
    return Module.parse(file.read_bytes(), name, is_package=file.stem == "__init__")


def _imports(
    tree: ast.Module, name: str, *, is_package: bool
) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, (alias.name, None)
                else:
                    top = alias.name.partition(".")[0]
                    yield top, (top, None)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = name.split(".")
                above = above[: len(above) - node.level + is_package]
                module = ".".join([*above, *([module] if module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, (module, alias.name)


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the top-level names that a statement binds, those inside an if, try, with or for included."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                yield node.id
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            waiting += ast.iter_child_nodes(node)


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring, or a string that documents the line above it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _for_types_only(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)


ANNOTATIONS = frozenset({"annotation", "returns", "type_comment", "type_params", "type_ignores"})
"""Fields of the syntax tree that say what types things have."""


def _raised(node: ast.AST) -> ast.AST:
    """Return a raise statement's exception without the sentence it is raised with."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return node.exc.func
    return node


def _digest(*statements: ast.stmt, whole: bool = False) -> str:
    """Return a hash of statements: the same whatever their position, their words and the Python version.

    ``whole`` counts import statements and annotations as well, as of a file that is not the project's.
    """
    return hashlib.sha256(repr([_plain(one, whole) for one in statements]).encode()).hexdigest()


def _plain(node: Any, whole: bool) -> Any:
    """Return a syntax tree as nested tuples, without its empty fields: newer Pythons have more of these."""
    if isinstance(node, ast.Raise) and not whole:
        node = _raised(node)
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "kind") or (not whole and name in ANNOTATIONS):
                continue
            plain = _plain(value, whole)
            if plain is not None and plain != []:
                fields.append((name, plain))
        return type(node).__name__, tuple(fields)
    if isinstance(node, list):
        kept = [
            one
            for one in node
            if not (isinstance(one, ast.stmt) and _is_text(one))
            and (whole or not isinstance(one, ast.Import | ast.ImportFrom))
        ]
        return [_plain(one, whole) for one in kept]
    return repr(node) if node is not None else None
