//! PURE: one route of the textbook's picture, from disk to network through the lanes of
//! hardware, kernel and user space, and the legend of its arrows.

use super::axis::as_number;
use super::figure::Cell;
use super::svg::{Anchor, Svg};
use super::unit::digits;

pub(crate) const HEIGHT: f64 = 146.0;
const WIDTH: f64 = 460.0;

// The lanes, by their middles, and the line between user and kernel mode.
const USER: f64 = 26.0;
const MODE: f64 = 52.0;
const KERNEL: f64 = 78.0;
const HARDWARE: f64 = 129.0;
// The places, by their middles.
const LEFT: f64 = 50.0;
const MIDDLE: f64 = 196.0;
const RIGHT: f64 = 342.0;
/// Half of a box.
const HALF: (f64, f64) = (50.0, 14.0);

/// Less than this of the bytes is not drawn as a copy: heads of packets, and of responses.
const COPY_MIN: f64 = 0.05;
/// More switches than this are a number and no row of marks.
const MARKS_MAX: usize = 8;

/// What happened to the bytes at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flow {
    /// By the processor, so many bytes for each that was sent.
    Copied(f64),
    Referenced,
    Unknown,
}

impl Flow {
    pub(crate) fn of(cell: &Cell) -> Self {
        match cell {
            Cell::Measured(figure) if figure.median() < COPY_MIN => Self::Referenced,
            Cell::Measured(figure) => Self::Copied(figure.median()),
            Cell::Said(_) | Cell::Missing(_) => Self::Unknown,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Copied(_) => "copy",
            Self::Referenced => "reference",
            Self::Unknown => "unknown",
        }
    }

    fn says(self) -> String {
        match self {
            Self::Copied(copies) => format!("copied {}×", digits(copies)),
            Self::Referenced => "by reference".to_owned(),
            Self::Unknown => "not measured".to_owned(),
        }
    }

    fn text_class(self) -> &'static str {
        match self {
            Self::Copied(_) => "small strong loud-text halo",
            Self::Referenced => "small calm-text halo",
            Self::Unknown => "small soft halo",
        }
    }
}

/// The way that a route took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strip<'a> {
    pub(crate) route: &'a str,
    pub(crate) switches: Option<f64>,
    pub(crate) into_process: Flow,
    pub(crate) into_socket: Flow,
    pub(crate) for_device: Flow,
}

impl Strip<'_> {
    /// How often the processor copied each byte, all places together, as text.
    pub(crate) fn copies(&self) -> String {
        let flows = [self.into_process, self.into_socket, self.for_device];
        let known =
            flows.iter().map(|flow| if let Flow::Copied(copies) = flow { *copies } else { 0.0 });
        let sum: f64 = known.sum();
        match flows.iter().filter(|flow| **flow == Flow::Unknown).count() {
            0 => digits((sum * 10.0).round() / 10.0),
            3 => "?".to_owned(),
            _ => format!("≥{}", digits((sum * 10.0).round() / 10.0)),
        }
    }

    fn is_by_reference(&self) -> bool {
        [self.into_process, self.into_socket, self.for_device]
            .iter()
            .all(|flow| *flow == Flow::Referenced)
    }
}

/// Draws it with its upper left corner there.
pub(crate) fn draw(svg: &mut Svg, corner: (f64, f64), strip: &Strip) {
    let pen = &mut Pen { svg, corner };
    pen.line((0.0, MODE), (WIDTH, MODE), "boundary");
    for (y, lane) in [(USER, "user"), (KERNEL, "kernel"), (HARDWARE, "hardware")] {
        pen.text(WIDTH, y + 4.5, Anchor::End, "soft small", lane);
    }
    ways(pen, strip);
    boxes(pen, strip);
    marks(pen, strip.switches);
}

fn ways(pen: &mut Pen, strip: &Strip) {
    let (half_width, half_height) = HALF;
    pen.arrow(&[(LEFT, HARDWARE - 12.0), (LEFT, KERNEL + half_height)], "dma");
    match strip.into_process {
        Flow::Copied(_) => {
            let up = [(LEFT, KERNEL - half_height), (LEFT, USER), (MIDDLE - half_width, USER)];
            pen.arrow(&up, "copy");
            pen.flow((f64::midpoint(LEFT, MIDDLE - half_width), USER - 10.0), strip.into_process);
            let down = [(MIDDLE + half_width, USER), (RIGHT, USER), (RIGHT, KERNEL - half_height)];
            pen.arrow(&down, strip.into_socket.class());
            pen.flow((f64::midpoint(MIDDLE + half_width, RIGHT), USER - 10.0), strip.into_socket);
        }
        Flow::Referenced | Flow::Unknown => {
            let along = [(LEFT + half_width, KERNEL), (RIGHT - half_width, KERNEL)];
            pen.arrow(&along, strip.into_socket.class());
            pen.flow((MIDDLE + 54.0, KERNEL - 8.0), strip.into_socket);
        }
    }
    if strip.is_by_reference() {
        let bend = KERNEL + half_height + 11.0;
        let start = LEFT + 28.0;
        pen.arrow(
            &[
                (start, KERNEL + half_height),
                (start, bend),
                (MIDDLE, bend),
                (MIDDLE, HARDWARE),
                (RIGHT - half_width, HARDWARE),
            ],
            "dma",
        );
        return;
    }
    let down = [(RIGHT, KERNEL + half_height), (RIGHT, HARDWARE - 12.0)];
    match strip.for_device {
        Flow::Referenced => pen.arrow(&down, "dma"),
        Flow::Copied(_) | Flow::Unknown => {
            pen.arrow(&down, strip.for_device.class());
            let y = f64::midpoint(KERNEL + half_height, HARDWARE - 12.0) + 4.0;
            let says = strip.for_device.says();
            pen.text(RIGHT - 12.0, y, Anchor::End, strip.for_device.text_class(), &says);
        }
    }
}

fn boxes(pen: &mut Pen, strip: &Strip) {
    let touched = |flow| if matches!(flow, Flow::Copied(_)) { "place touched" } else { "place" };
    pen.place((LEFT, HARDWARE), 12.0, "place", "disk");
    pen.place((LEFT, KERNEL), HALF.1, "place", "page cache");
    pen.place((RIGHT, KERNEL), HALF.1, touched(strip.into_socket), "socket buffer");
    pen.place((RIGHT, HARDWARE), 12.0, touched(strip.for_device), "network");
    match (strip.into_process, strip.route) {
        (Flow::Copied(_), _) => pen.place((MIDDLE, USER), HALF.1, "place touched", "buffer"),
        (Flow::Referenced, "mmap-write") => pen.idle("mapping"),
        (Flow::Referenced, _) => pen.idle("no buffer"),
        (Flow::Unknown, _) => pen.idle("buffer?"),
    }
}

/// Down into the kernel, up out of it, down ...
fn marks(pen: &mut Pen, switches: Option<f64>) {
    let Some(switches) = switches else { return };
    let count = (0..=MARKS_MAX).find(|&count| as_number(count) + 0.5 > switches);
    let count = count.unwrap_or(MARKS_MAX);
    for index in 0..count {
        // The two of a call stand together.
        let left = 16.0 * as_number(index) + 10.0 * as_number(index / 2);
        let right = left - (16.0 * as_number(count - 1) + 10.0 * as_number((count - 1) / 2)) / 2.0;
        let tip = if index % 2 == 0 { 6.0 } else { -6.0 };
        let triangle = [(-6.0, -tip), (6.0, -tip), (0.0, tip)];
        pen.shape((MIDDLE + right, MODE), &triangle, "switch");
    }
}

/// Says what arrows and marks mean, from y on; says where it ends.
pub(crate) fn legend(svg: &mut Svg, y: f64, width: f64) -> f64 {
    let entries = [
        ("copy", "copied by the processor, so many times each byte"),
        ("reference", "passed by reference: pages stay where they are"),
        ("dma", "moved by devices (DMA): as in textbooks, not measured"),
        ("switch", "a switch into the kernel, and one back"),
    ];
    let columns: usize = if width > 2.0 * WIDTH { 2 } else { 1 };
    let mut bottom = y;
    for (index, (class, text)) in entries.into_iter().enumerate() {
        let x = as_number(index % columns) * 500.0;
        let y = y + as_number(index / columns) * 22.0;
        let pen = &mut Pen { svg, corner: (x, y) };
        if class == "switch" {
            pen.shape((10.0, -4.0), &[(-6.0, -6.0), (6.0, -6.0), (0.0, 6.0)], class);
            pen.shape((28.0, -4.0), &[(-6.0, 6.0), (6.0, 6.0), (0.0, -6.0)], class);
        } else {
            pen.arrow(&[(0.0, -4.0), (38.0, -4.0)], class);
        }
        pen.text(48.0, 0.0, Anchor::Start, "soft small", text);
        bottom = y;
    }
    bottom + 10.0
}

/// Draws relative to a corner.
struct Pen<'a> {
    svg: &'a mut Svg,
    corner: (f64, f64),
}

impl Pen<'_> {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.corner.0 + x, self.corner.1 + y)
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let (from, to) = (self.at(from), self.at(to));
        self.svg.line(from, to, class);
    }

    fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let (x, y) = self.at((x, y));
        self.svg.text(x, y, anchor, class, text);
    }

    fn shape(&mut self, at: (f64, f64), points: &[(f64, f64)], class: &str) {
        let at = self.at(at);
        self.svg.shape(at, points, class);
    }

    fn flow(&mut self, (x, y): (f64, f64), flow: Flow) {
        self.text(x, y, Anchor::Middle, flow.text_class(), &flow.says());
    }

    fn place(&mut self, (x, y): (f64, f64), half_height: f64, class: &str, name: &str) {
        let (left, top) = self.at((x - HALF.0, y - half_height));
        self.svg.rect(left, top, (2.0 * HALF.0, 2.0 * half_height), class);
        self.text(x, y + 4.5, Anchor::Middle, "small", name);
    }

    /// The user's place where the bytes do not come by.
    fn idle(&mut self, name: &str) {
        let (left, top) = self.at((MIDDLE - HALF.0, USER - HALF.1));
        self.svg.rect(left, top, (2.0 * HALF.0, 2.0 * HALF.1), "place idle");
        self.text(MIDDLE, USER + 4.5, Anchor::Middle, "small idle-text", name);
    }

    /// Straight lines, level or upright, and a head at the last point.
    fn arrow(&mut self, points: &[(f64, f64)], class: &str) {
        let [.., before, tip] = points else { return };
        let (length, half) = if class == "copy" { (13.0, 9.0) } else { (8.0, 4.5) };
        let (right, down) = ((tip.0 - before.0).signum(), (tip.1 - before.1).signum());
        let is_level = tip.1 == before.1;
        let (right, down) = if is_level { (right, 0.0) } else { (0.0, down) };
        let neck = (tip.0 - right * length, tip.1 - down * length);
        let mut way: Vec<_> = points.iter().map(|&point| self.at(point)).collect();
        if let Some(last) = way.last_mut() {
            *last = self.at(neck);
        }
        self.svg.path(&way, class);
        let (over, up) = (down * half, right * half);
        let head = [
            (0.0, 0.0),
            (-right * length + over, -down * length + up),
            (-right * length - over, -down * length - up),
        ];
        let tip = self.at(*tip);
        self.svg.shape(tip, &head, &format!("{class}-head"));
    }
}
