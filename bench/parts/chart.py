"""A chart with lines, as SVG: nothing but text, which opens from disk."""

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 70, 50, 50, 150
COLOURS = ("#1b6ca8", "#c2552d", "#3c8d40", "#7a4fa3")


def write(path, title, across, up, lines):
    """`lines`: name -> [(x, y), …]. Both axes begin at 0, so that what is linear is a line through the corner."""
    points = [point for line in lines.values() for point in line]
    most_x, most_y = (step_up(max(point[axis] for point in points)) for axis in (0, 1))

    def at(x, y):
        return LEFT + x / most_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / most_y * (HEIGHT - BOTTOM - TOP)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', text(LEFT, 28, title, size=15)]
    for part in range(6):
        x, y = most_x * part / 5, most_y * part / 5
        (left, bottom), (right, top) = at(0, y), at(most_x, most_y)
        out.append(f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#dddddd"/>')
        out.append(text(left - 8, bottom + 4, f"{y:g}", "end"))
        out.append(text(at(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:g}", "middle"))
    out.append(text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 10, across, "middle"))
    out.append(text(LEFT, TOP - 8, up))
    for (name, line), colour in zip(lines.items(), COLOURS * len(lines)):
        places = [at(*point) for point in sorted(line)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        out.append(text(places[-1][0] + 8, places[-1][1] + 4, name, colour=colour))
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*out, "</svg>", ""]))


def text(x, y, words, anchor="start", size=12, colour="black"):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{words}</text>'


def step_up(value):
    """The next round number."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    while scale > value:
        scale /= 10
    return next(scale * step for step in (1, 2, 2.5, 5, 10) if scale * step >= value)
