"""The style sheet of `html`. It is all there is besides the markup: no script, no font, no image."""

from __future__ import annotations

__all__ = ["PAGE_STYLE", "STYLE"]

_LIGHT = """
  --ink: #1d2330; --soft: #667085; --line: #d9dee7; --card: #ffffff; --ground: #f5f6f9; --link: #3451b2;
  --cached: #dfe9fb; --cached-line: #6b8fd6; --forced: #fdebc4; --forced-line: #c28a17;
  --selected: #eadcfb; --selected-line: #8f5fd0; --sampled: #dcf3e2; --sampled-line: #4c9f68;
  --p0: #f9c6c0; --p1: #fbdcc4; --p2: #f6eec0; --p3: #e0f2d4; --bad: #b42318; --bad-ground: #fdecea;
"""
_DARK = """
  --ink: #e3e7ef; --soft: #98a2b3; --line: #343b49; --card: #1a1f29; --ground: #11151c; --link: #9db5ff;
  --cached: #22355a; --cached-line: #6f97e6; --forced: #4c3a10; --forced-line: #dca63c;
  --selected: #3f2c5c; --selected-line: #b390ea; --sampled: #1c4029; --sampled-line: #5cb87c;
  --p0: #6b2a25; --p1: #623a1d; --p2: #514a16; --p3: #33481f; --bad: #ff9b91; --bad-ground: #3a1c1a;
"""

STYLE = f"""
.sgl-trace {{ {_LIGHT} color: var(--ink); font: 15px/1.5 system-ui, sans-serif; text-align: left;
  color-scheme: light; }}
@media (prefers-color-scheme: dark) {{ .sgl-trace {{ {_DARK} color-scheme: dark; }} }}
[data-jp-theme-light="true"] .sgl-trace {{ {_LIGHT} color-scheme: light; }}
[data-jp-theme-light="false"] .sgl-trace {{ {_DARK} color-scheme: dark; }}
.sgl-trace * {{ box-sizing: border-box; }}
.sgl-trace h1, .sgl-trace h2, .sgl-trace h3 {{ margin: 0; font-weight: 600; font-size: 15px; line-height: 1.4; }}
.sgl-trace h1 {{ font-size: 20px; }}
.sgl-trace .sub {{ color: var(--soft); font-size: 13px; font-weight: 400; }}
.sgl-trace a {{ color: var(--link); }}
.sgl-trace .legend {{ display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 10px 0 14px; padding: 0; list-style: none;
  font-size: 13px; color: var(--soft); }}
.sgl-trace .legend .t {{ color: var(--ink); font: 13px/1.5 ui-monospace, monospace; padding: 1px 5px; }}
.sgl-trace .card {{ background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0 0 10px;
  padding: 8px 12px 10px; }}
.sgl-trace .role {{ color: var(--soft); font-size: 12px; font-weight: 600; letter-spacing: .04em; margin-bottom: 2px; }}
.sgl-trace .text {{ font: 14px/1.75 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; tab-size: 4; }}
.sgl-trace .t {{ position: relative; border-radius: 3px; padding: 1px 0; box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }}
.sgl-trace .markup, .sgl-trace .markup .t {{ color: var(--soft); }}
.sgl-trace .cached {{ background: var(--cached); }}
.sgl-trace .sampled {{ background: var(--sampled); box-shadow: inset 0 -2px 0 var(--sampled-line); }}
.sgl-trace .forced {{ background: var(--forced); border-bottom: 2px dotted var(--forced-line); }}
.sgl-trace .selected {{ background: var(--selected); border-bottom: 2px solid var(--selected-line); }}
.sgl-trace .healed {{ background: var(--selected); border-bottom: 2px dashed var(--selected-line); }}
.sgl-trace .p0 {{ background: var(--p0); }}
.sgl-trace .p1 {{ background: var(--p1); }}
.sgl-trace .p2 {{ background: var(--p2); }}
.sgl-trace .p3 {{ background: var(--p3); }}
.sgl-trace .gen .t + .t {{ border-left: 1px solid var(--card); }}
.sgl-trace .cut {{ text-decoration: line-through; color: var(--soft); }}
.sgl-trace .ctl {{ color: var(--bad); font-size: .8em; border: 1px solid currentcolor; border-radius: 3px;
  padding: 0 2px; }}
.sgl-trace .nl {{ color: var(--soft); opacity: .6; user-select: none; }}
.sgl-trace .bytes {{ color: var(--soft); font-size: .7em; }}
.sgl-trace .name {{ font: 600 11px/1.4 system-ui, sans-serif; color: var(--card); background: var(--sampled-line);
  border-radius: 4px; padding: 1px 6px; margin: 0 4px 0 2px; text-decoration: none; white-space: nowrap; }}
.sgl-trace .select > .name {{ background: var(--selected-line); }}
.sgl-trace .broken > .name {{ background: var(--bad); }}
.sgl-trace .t:focus-visible, .sgl-trace .name:focus-visible, .sgl-trace summary:focus-visible {{
  outline: 2px solid var(--link); outline-offset: 1px; }}
.sgl-trace .tip {{ display: none; position: absolute; z-index: 10; left: 0; top: 100%; width: max-content;
  max-width: 22rem; background: var(--card); color: var(--ink); border: 1px solid var(--line); border-radius: 6px;
  box-shadow: 0 6px 20px rgb(0 0 0 / .25); padding: 6px 10px; font: 13px/1.5 system-ui, sans-serif;
  white-space: normal; text-decoration: none; user-select: none; }}
.sgl-trace .t:hover > .tip, .sgl-trace .t:focus > .tip {{ display: block !important; }}
@supports (position-try-fallbacks: flip-inline) {{
  .sgl-trace .t:hover, .sgl-trace .t:focus {{ anchor-name: --sgl-token; }}
  .sgl-trace .t {{ position: static; }}
  .sgl-trace .tip {{ position: fixed; inset: auto; position-anchor: --sgl-token; position-area: bottom span-right;
    position-try-fallbacks: flip-inline, flip-block, flip-block flip-inline; margin: 2px 0; }}
}}
.sgl-trace .tip code, .sgl-trace .alt {{ font: 13px ui-monospace, monospace; white-space: pre-wrap; }}
.sgl-trace .tip table {{ margin-top: 4px; }}
.sgl-trace .taken td {{ font-weight: 700; }}
.sgl-trace .fork {{ display: flex; gap: 10px; overflow-x: auto; align-items: flex-start; margin: 0 0 10px;
  padding: 8px 0 4px 12px; border-left: 3px solid var(--line); }}
.sgl-trace .branch {{ flex: 1 0 12rem; min-width: 12rem; }}
.sgl-trace .branch > h3 {{ margin-bottom: 4px; }}
.sgl-trace .joined {{ margin: -4px 0 10px 15px; }}
.sgl-trace .error {{ background: var(--bad-ground); color: var(--bad); border: 1px solid currentcolor;
  border-radius: 8px; padding: 6px 12px; margin: 0 0 10px; overflow-wrap: anywhere; white-space: pre-wrap; }}
.sgl-trace .scroll {{ overflow-x: auto; }}
.sgl-trace table {{ border-collapse: collapse; font-size: 13px; }}
.sgl-trace th, .sgl-trace td {{ text-align: left; vertical-align: top; padding: 3px 14px 3px 0; border: 0;
  background: none; }}
.sgl-trace .gens th {{ color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line);
  white-space: nowrap; }}
.sgl-trace .gens td {{ border-bottom: 1px solid var(--line); }}
.sgl-trace .gens td td {{ border: 0; padding: 0 10px 0 0; }}
.sgl-trace .num {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.sgl-trace .gens tr:target td {{ background: var(--cached); }}
.sgl-trace pre {{ margin: 2px 0; font: 12px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  background: none; color: inherit; }}
.sgl-trace meter {{ width: 7rem; height: .8em; vertical-align: baseline; }}
.sgl-trace summary {{ cursor: pointer; color: var(--soft); font: 13px/1.5 system-ui, sans-serif; }}
.sgl-trace ol {{ margin: 0; padding-left: 2.5em; }}
.sgl-trace + .sgl-trace {{ border-top: 2px solid var(--line); margin-top: 24px; padding-top: 24px; }}
@media print {{ .sgl-trace .tip {{ display: none !important; }} }}
"""

PAGE_STYLE = f"""
:root {{ color-scheme: light dark; }}
body {{ margin: 0; background: #f5f6f9; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #11151c; }} }}
main {{ max-width: 78rem; margin: 0 auto; padding: 20px 16px 60px; }}
{STYLE}"""
