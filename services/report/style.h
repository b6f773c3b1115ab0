// The page's style sheet: system fonts, light and dark, narrow screens, print.
#pragma once

namespace plumbline {

inline constexpr char kReportStyle[] = R"css(
:root{--bg:#fbfbf9;--card:#fff;--ink:#1c1f23;--muted:#5d666f;--line:#dfe2e5;--accent:#2f5fd0;
--good:#1d7a46;--bad:#b3261e;--warn:#8a5a00;--bar:#7f9bd8;--safe:#e3f4e8;--collapse:#fdf1dc;
--complete:#fbe2df;--s0:#2f5fd0;--s1:#c2571a;--s2:#1d7a46;--s3:#8b3fb0;--s4:#b3261e;--s5:#5d666f;--s6:#0b8a8f;--s7:#a88400;--deg:#9aa1a9;--shade:#0003}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e8eaed;--muted:#a0a8b0;
--line:#343a40;--accent:#8fb0ff;--good:#6fd09a;--bad:#ff8a80;--warn:#f0c060;--bar:#5877b8;
--safe:#17301f;--collapse:#33290f;--complete:#3a1d1b;--s0:#8fb0ff;--s1:#ffab70;--s2:#6fd09a;
--s3:#d59bf0;--s4:#ff8a80;--s5:#a0a8b0;--s6:#5fd3d8;--s7:#e0c34a;--deg:#8a929b;--shade:#000a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Noto Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.05rem;font-weight:600;color:var(--muted);margin:0 0 4px}
h2{font-size:1.2rem;margin:40px 0 8px}
p{margin:8px 0}
.verdict{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--muted);
border-radius:8px;padding:18px 20px;margin:12px 0}
.verdict.good{border-left-color:var(--good)}.verdict.bad{border-left-color:var(--bad)}
.verdict.unsure{border-left-color:var(--warn)}
.word{font-size:1.7rem;font-weight:700;line-height:1.2}
.good .word{color:var(--good)}.bad .word{color:var(--bad)}.unsure .word{color:var(--warn)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:12px;margin:16px 0}
.fact{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.fact b{display:block;font-size:1.25rem;line-height:1.3;overflow-wrap:anywhere}
.fact span{display:block;color:var(--muted);font-size:.82rem;line-height:1.4;overflow-wrap:anywhere}
.warnings{border:1px solid var(--warn);border-radius:8px;padding:8px 14px 8px 32px;margin:8px 0;
font-size:.9rem}
.verdict ul{margin:6px 0;padding-left:20px;font-size:.9rem}.verdict p{overflow-wrap:anywhere}
figure{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:12px 0;padding:12px}
figcaption{color:var(--muted);font-size:.9rem;margin-top:6px}
svg{display:block;width:100%;height:auto}
.on-narrow{display:none}.legend{margin:6px 0;line-height:1.7}
svg text{fill:var(--ink);font-size:12px}svg .tick{fill:var(--muted)}svg .axis{fill:var(--muted)}
svg .note{font-size:11px}svg .grid{stroke:var(--line)}
svg .band-safe{fill:var(--safe)}svg .band-collapse{fill:var(--collapse)}
svg .band-complete{fill:var(--complete)}svg .band-outlier{fill:var(--complete)}
svg .band-mixed{fill:var(--collapse)}svg .band-crush{fill:var(--safe)}
svg .bar{fill:var(--bar)}svg .bar-critical{fill:var(--bad)}
svg .bar-degenerate{fill:var(--deg);opacity:.6}
svg .whisker{stroke:var(--ink);stroke-width:1.3;opacity:.6}
svg .whisker.faint{opacity:.28}
svg .trend{fill:none;stroke:var(--accent);stroke-width:1.5}svg .dot{fill:var(--accent)}
svg .dot-hollow{fill:var(--card);stroke:var(--accent);stroke-width:2}
svg .dot-target{fill:var(--accent);stroke:var(--ink);stroke-width:2}
svg .trend-degenerate{fill:none;stroke:var(--deg);stroke-width:1.5;stroke-dasharray:4 3}
svg .dot-degenerate{fill:var(--card);stroke:var(--deg);stroke-width:2}
svg .dot-recommended{fill:var(--good);stroke:var(--ink)}
svg .limit{stroke:var(--bad);stroke-dasharray:5 4}
svg .line{fill:none;stroke-width:1.6}
svg .line.series0{stroke:var(--s0)}svg .line.series1{stroke:var(--s1)}svg .line.series2{stroke:var(--s2)}
svg .line.series3{stroke:var(--s3)}svg .line.series4{stroke:var(--s4)}svg .line.series5{stroke:var(--s5)}
svg .line.series6{stroke:var(--s6)}svg .line.series7{stroke:var(--s7)}svg .line.again{stroke-dasharray:5 3}
svg .point.series0{fill:var(--s0)}svg .point.series1{fill:var(--s1)}svg .point.series2{fill:var(--s2)}
svg .point.series3{fill:var(--s3)}svg .point.series4{fill:var(--s4)}svg .point.series5{fill:var(--s5)}
svg .point.series6{fill:var(--s6)}svg .point.series7{fill:var(--s7)}
.key{white-space:nowrap;margin-right:14px;font-size:.85rem}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:5px;vertical-align:-1px}
.swatch.series0{background:var(--s0)}.swatch.series1{background:var(--s1)}
.swatch.series2{background:var(--s2)}.swatch.series3{background:var(--s3)}
.swatch.series4{background:var(--s4)}.swatch.series5{background:var(--s5)}
.swatch.series6{background:var(--s6)}.swatch.series7{background:var(--s7)}
.swatch.again{border-radius:50%}.swatch.bar{background:var(--bar)}.swatch.flips{background:var(--accent)}
.swatch.critical{background:var(--bad)}.swatch.degenerate{background:var(--deg)}
.swatch.interval{width:2px;background:var(--ink);opacity:.6;border-radius:0}
.swatch.band-safe,.swatch.band-collapse,.swatch.band-complete{border:1px solid var(--line)}
.swatch.band-safe{background:var(--safe)}.swatch.band-collapse{background:var(--collapse)}
.swatch.band-complete{background:var(--complete)}
/* A shadow at the side to which a wide table goes on. */
.scroll{overflow-x:auto;margin:8px 0;background:linear-gradient(to right,var(--bg) 40%,transparent),
linear-gradient(to left,var(--bg) 40%,transparent) 100% 0,linear-gradient(to right,var(--shade),
transparent),linear-gradient(to left,var(--shade),transparent) 100% 0;background-repeat:no-repeat;
background-size:36px 100%,36px 100%,12px 100%,12px 100%;
background-attachment:local,local,scroll,scroll}
table{border-collapse:collapse;font-size:.85rem;width:100%}
caption{text-align:left;color:var(--muted);padding:4px 0}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;
white-space:nowrap}
th{font-weight:600}td.wide{white-space:normal;overflow-wrap:anywhere;min-width:14em}
tr.noted>td{border-bottom:0}
td.remark{color:var(--muted);white-space:normal;padding-top:0}
.stay{position:sticky;left:0;max-width:min(1048px,calc(100vw - 32px));white-space:normal}
td details{margin:0}td summary{color:inherit}
details{margin:8px 0}summary{cursor:pointer;color:var(--accent)}
code,pre{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{white-space:pre-wrap;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px}
footer{color:var(--muted);font-size:.85rem;margin-top:40px}
table.pairs td{white-space:normal;overflow-wrap:anywhere;min-width:6em}
@media(max-width:600px){td.wide{white-space:nowrap}table.pairs td.wide{white-space:normal;min-width:0}
.on-wide{display:none}.on-narrow{display:block}
.facts{grid-template-columns:1fr 1fr;gap:8px}.fact{padding:8px 10px}.fact b{font-size:1.05rem}
main{padding:16px 16px 48px}.verdict{padding:14px 16px}}
@media print{body{background:#fff}details>*{display:block}}
)css";

}  // namespace plumbline
