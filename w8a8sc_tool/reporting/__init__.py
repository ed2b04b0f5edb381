"""The report: what a person wants to see of checkpoints and directories before handing them on, in one HTML file.

    subjects    what is reported on, as far as it can be read: asked of inspect, verify, fit, serve and the planner
    figures     what follows from that: cells of the map, bytes by kind, bytes that a token reads
    pictures    drawn by matplotlib
    svg         a drawing as a part of a page: its colours the page's, its names nobody else's
    page        HTML, by Jinja2 with everything escaped
    report      all of it: what is refused, and the file

It stands above the jobs, whose results it shows. The file is one, loads nothing and runs nothing.
"""
