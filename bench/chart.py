#!/usr/bin/env python3
"""Draws the CPU cost of large downloads by server from a CSV of bench/drive.py.

    bench/chart.py servers.csv /big OUT.svg
"""

import csv
import statistics
import sys

WIDTH, BAR, GAP, LEFT = 640, 26, 14, 150
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px } .ours { fill: #0969da } .peer { fill: #8c959f }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #4493f8 } }
"""


def medians(path_csv, target):
    costs = {}
    with open(path_csv, newline="") as rows:
        for row in csv.DictReader(rows):
            if row["path"] == target:
                cost = float(row["cpu_seconds"]) * 1e11 / float(row["bytes"])
                costs.setdefault(row["server"], []).append(cost)
    return sorted((statistics.median(cost), name) for name, cost in costs.items())


def svg(bars):
    scale = (WIDTH - LEFT - 70) / max(cost for cost, _ in bars)
    height = 48 + len(bars) * (BAR + GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        ' aria-label="CPU per gigabyte sent, by server">',
        f"<style>{STYLE}</style>",
        '<text class="title" x="8" y="24">CPU per GB sent, in hundredths of a second'
        " (less is better)</text>",
    ]
    for index, (cost, name) in enumerate(bars):
        top = 42 + index * (BAR + GAP)
        kind = "ours" if name.startswith("pagewire") else "peer"
        middle = top + BAR * 0.7
        out.append(f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{name}</text>')
        length = cost * scale
        out.append(
            f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3"/>'
        )
        out.append(f'<text x="{LEFT + length + 8:.1f}" y="{middle}">{cost:.1f}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__.strip())
    with open(sys.argv[3], "w", encoding="utf-8") as out:
        out.write(svg(medians(sys.argv[1], sys.argv[2])))


if __name__ == "__main__":
    main()
