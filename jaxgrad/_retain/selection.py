"""Choosing among the named intermediates of a program."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxgrad._errors import TagError
from jaxgrad._names.bound import Bound
from jaxgrad._program.sites import Site, named
from jaxgrad._text import did_you_mean


def name_patterns(names: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None or isinstance(names, str):
        return names if names is None else (names,)
    patterns = tuple(names) if isinstance(names, Iterable) else (names,)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TagError(f"`names` has {pattern!r}; expected names or globs, as strings, or None for every tag.")
    return patterns


def select(sites: Sequence[Site], names: Sequence[str] | None, bound: Bound) -> tuple[Site, ...]:
    """The sites that `names` asks for, named and checked: each has a right gradient, or none and says so.

    What `watch` has named and cannot be retained is left out, unless it is asked for; `set_aside` says why.

    Args:
      sites: those of a program.
      names: exact names or globs (`*` and `?`), with or without the number; None for all tags.
      bound: what was bound as the program was traced.

    Raises:
      TagError: there is nothing by such a name, or no tag at all; a tag is bypassed or cannot be followed.
    """
    chosen = _chosen(sites, names, bound)
    for site in chosen:
        if (refusal := _refusal(site)) and not _may_be_left(site, names):
            raise TagError(f"{site.label} {refusal}")
    return tuple(site for site in chosen if not _refusal(site))


def set_aside(sites: Sequence[Site], names: Sequence[str] | None, bound: Bound) -> dict[str, str]:
    """Name -> why it is not retained, of what `watch` has named in the program or could not name."""
    chosen = _chosen(sites, names, bound)
    left = {site.name: f"not retained: it {refusal}" for site in chosen if (refusal := _refusal(site))}
    return left | bound.remarks


def _may_be_left(site: Site, names: Sequence[str] | None) -> bool:
    """Has `watch` named it, and nobody asked for it by name?"""
    return site.names_only and not (names is not None and {site.name, site.given} & {*names})


def _refusal(site: Site) -> str | None:
    """Why a site cannot be retained, and what to do; None if it can."""
    if site.unsupported:
        return f"{site.unsupported}, or leave it out by `names`."
    if site.state == "bypassed" and site.is_inexact:  # any other has no gradient that could mislead
        return (
            "is bypassed: its result does not reach the output but its input does, so its gradient would read a "
            f'misleading 0. Write `{site.given} = tag({site.given}, "{site.given}")` and use the result.'
        )
    if not site.by_tag and "vmap" in site.nest:
        return (
            "is in a vmap, and does not keep which of its axes is the batch. Name it by `jaxgrad.tag`, or take vmap "
            "outside: vmap(retain_grads(...))."
        )
    if len(site.layouts) != 1:
        return (
            "is in several vmaps and scans, and not batched by all of those vmaps, so the order of its leading axes "
            "is unknown. Tag it outside of the vmap that does not batch it."
        )
    return None


def _chosen(sites: Sequence[Site], names: Sequence[str] | None, bound: Bound) -> Sequence[Site]:
    """The sites that `names` asks for, without regard to whether they can be retained."""
    if names is None:
        tags = named([site for site in sites if site.by_tag])
        if not tags and bound.watched:
            raise TagError(_nothing_watched(bound))
        if not tags:
            raise TagError(
                "the function has no tag, so there is nothing to retain. Name its intermediates, "
                '`z = jaxgrad.tag(z, "z")`, or give `names` of its checkpoint_names, or names=() for none.'
            )
        return tags
    every = named(sites)
    matches = {pattern: [site for site in every if _matches(site, pattern)] for pattern in names}
    for pattern, matched in matches.items():
        if not matched:
            raise TagError(_no_such_name(pattern, [site.name for site in every]))
    return [site for site in every if any(site in matched for matched in matches.values())]


@dataclass(frozen=True)
class Refusing:
    """What to call at a tag that is bound as a program is differentiated: it is in a rule, and in no program."""

    names: tuple[str, ...] | None

    def __call__(self, name: str, where: str, traced: bool, names_only: bool) -> None:
        if self.names is None or any(_glob(pattern).fullmatch(name) for pattern in self.names):
            raise TagError(
                f'tag "{name}" ({where}) is in a derivative rule (of a custom_jvp or custom_vjp function), which is no '
                "part of the function's own program. Tag the function's arguments or its result, or leave it out by "
                "`names`."
            )


def _nothing_watched(bound: Bound) -> str:
    others = "".join(f" `{name}` is {text}." for name, text in list(bound.remarks.items())[:3])
    return (
        f"no variable of the watched function `{bound.watched}` holds an array that depends on its arguments, so there "
        "is nothing to retain. Bind its intermediates to variables, `h = jnp.tanh(x)`, or give watch `within=` the "
        f"module, class or function whose code has them.{others}"
    )


def _matches(site: Site, pattern: str) -> bool:
    glob = _glob(pattern)
    return any(glob.fullmatch(name) is not None for name in (site.name, site.given))


@functools.cache
def _glob(pattern: str) -> re.Pattern[str]:
    """`*` is any characters and `?` any one; all else is itself, brackets too: they have the number of a name."""
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(character, re.escape(character)) for character in pattern), re.DOTALL)


def _no_such_name(pattern: str, known: Sequence[str]) -> str:
    near = did_you_mean(pattern, known)
    hint = f" {near} There are: {', '.join(known)}." if near else " The function has no tag at all."
    return f'`names` asks for "{pattern}", and nothing is tagged so.{hint}'
