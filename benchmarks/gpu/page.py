"""What the parts have found, for people: lines as they come, and one page of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Found = dict[str, Any]

AIMS = {"0.5b": 0.40, "3b": 0.50}  # of nominal, on one H200
HEAD = (
    "| size | blocks | ms a step | tokens a second | MFU | peak memory, GiB | checkpoint: first stop, next stops, s |",
    "|---|---|---|---|---|---|---|",
)
GIB = 2**30


def page(found: Sequence[Found]) -> str:
    """Markdown: the table of all steps, then what each part has to say."""
    rows = [_row(one) for one in found if one["part"] == "steps" and "not_measured" not in one]
    table = [*HEAD, *rows, ""] if rows else []
    return "\n".join(["# Training on one GPU", "", *table, *(line for one in found for line in lines_of(one))]) + "\n"


def lines_of(found: Found) -> list[str]:
    """Lines of one part."""
    name = " ".join(str(found[key]) for key in ("part", "size", "blocks") if key in found)
    if "not_measured" in found:
        return [f"{name}: not measured: {found['not_measured']}", ""]
    lines = {"card": _card, "attention": _attention, "agreement": _agreement, "steps": _steps}[found["part"]](found)
    return [*lines, f"(this part took {found['took_s']:.0f} s)", ""]


def _card(found: Found) -> list[str]:
    nominal, product = found["nominal_flops_per_s"], found["product_flops_per_s"]
    share = "of unknown nominal speed" if nominal is None else f"{product / nominal:.0%} of nominal"
    return [
        f"{found['name']}, torch {found['torch']}, Python {found['python']}; "
        f"attention in bfloat16: {'varlen' if found['has_varlen'] else 'no varlen kernel'}",
        f"product in bfloat16: {product / 1e12:.3g} TFLOP/s, {share}; copy: {found['copy_bytes_per_s'] / 1e12:.3g} TB/s read and written; "
        f"to pinned memory: {found['to_host_bytes_per_s'] / 1e9:.3g} GB/s",
    ]


def _attention(found: Found) -> list[str]:
    return [
        f"attention of {size}, bfloat16 beside float32: {_verdict(one)}; "
        + ", ".join(f"{name} {error:.1e}" for name, error in one["errors"].items())
        + f" off, limit {found['limit']:.0e}; {one['forward_backward_ms']:.2f} ms forward and backward"
        for size, one in found["sizes"].items()
    ]


def _agreement(found: Found) -> list[str]:
    lines = []
    for dtype in ("float32", "bfloat16"):
        one = found[dtype]
        lines.append(
            f"small model in {dtype}, beside the CPU in float32: {_verdict(one)}; loss {one['loss_error']:.1e}, "
            f"gradient {one['gradient_error']:.1e} off, limit {one['limit']:.0e}"
        )
        if not one["agrees"]:
            lines += [f"  furthest off: {name} {error:.1e}" for name, error in one["furthest"].items()]
    return lines


def _row(found: Found) -> str:
    blocks = f"{found['blocks']}{', recomputed' if found['recomputes'] else ''}"
    mfu = "not measured" if found["mfu"] is None else f"{found['mfu']:.1%}{_aim(found)}"
    memory = "not measured" if found["peak_bytes"] is None else f"{found['peak_bytes'] / GIB:.1f}"
    first, *later = found["stalls_s"]
    return (
        f"| {found['size']} | {blocks} | {1000 * found['step_s']:.0f} | {found['tokens_per_s']:,.0f} | {mfu} | {memory} "
        f"| {first:.2f}, {max(later):.2f} |"
    )


def _steps(found: Found) -> list[str]:
    phases = ", ".join(f"{name} {1000 * took_s:.0f}" for name, took_s in found["phases_s"].items())
    lines = [
        *HEAD,
        _row(found),
        "",
        f"ms of a step done piece by piece: {phases}; the first step took {found['first_step_s']:.0f} s",
    ]
    if "kinds_ms" in found:
        kinds = ", ".join(f"{name} {took_ms:.0f}" for name, took_ms in found["kinds_ms"].items())
        lines.append(f"the device is at work {found['busy']:.0%} of a step, {found['launches']} kernels; ms by kind: {kinds}")
        lines += [f"    {took_ms:8.1f} ms {count:6d} x {name[:110]}" for name, took_ms, count in found["kernels"][:8]]
    if "kernels_not_measured" in found:
        lines.append(f"kernels: not measured: {found['kernels_not_measured']}")
    return lines


def _verdict(one: Found) -> str:
    return "agrees" if one["agrees"] else "DIFFERS"


def _aim(found: Found) -> str:
    aim = AIMS.get(found["size"])
    return "" if aim is None else f" (aim {aim:.0%}: {'met' if found['mfu'] >= aim else 'not met'})"
