//! PURE: the few SVG elements that the charts are made of. Shapes have classes and no colours:
//! those come from templates/chart.css, so that one drawing is right in light, dark and print.
//! Chart crates such as plotters write colours and text sizes into each shape, which is why
//! there is none here.

use std::fmt::{self, Write as _};

/// The style of all charts, for the page and for pictures that stand alone.
pub(crate) const CHART_CSS: &str = include_str!("../../../templates/chart.css");

/// How wide a character of a given font size is on average, in DejaVu Sans: the widest of the
/// fonts that `system-ui` stands for. Where another one is used there is room to spare.
const CHARACTER_WIDTH: f64 = 0.6;
/// Bold text is as wide as text so much larger.
pub(crate) const BOLD: f64 = 1.1;

/// Around a drawing that stands alone.
const MARGIN: f64 = 20.0;

/// Which end of a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing under way. Its unit is a pixel where it is shown at its own size.
#[derive(Debug)]
pub(crate) struct Svg {
    width: f64,
    elements: String,
}

impl Svg {
    pub(crate) fn new(width: f64) -> Self {
        Self { width, elements: String::new() }
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (x, y, text) = (Number(x), Number(y), Escaped(text));
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{text}</text>"
        ));
    }

    /// A negative width or height is none.
    pub(crate) fn rect(&mut self, x: f64, y: f64, (width, height): (f64, f64), class: &str) {
        let (x, y) = (Number(x), Number(y));
        let (width, height) = (Number(width.max(0.0)), Number(height.max(0.0)));
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
             rx=\"3\"/>"
        ));
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let (x1, y1, x2, y2) = (Number(x1), Number(y1), Number(x2), Number(y2));
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
        ));
    }

    /// Straight lines from point to point.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let mut way = String::new();
        for (index, &(x, y)) in points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            write(&mut way, format_args!("{letter}{} {}", Number(x), Number(y)));
        }
        self.push(format_args!("<path class=\"{class}\" d=\"{way}\"/>"));
    }

    /// A closed shape around a place, its points given from there.
    pub(crate) fn shape(&mut self, (x, y): (f64, f64), points: &[(f64, f64)], class: &str) {
        let mut way = String::new();
        for (index, &(right, down)) in points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            write(&mut way, format_args!("{letter}{} {}", Number(x + right), Number(y + down)));
        }
        self.push(format_args!("<path class=\"{class}\" d=\"{way}Z\"/>"));
    }

    pub(crate) fn circle(&mut self, (x, y): (f64, f64), radius: f64, class: &str) {
        let (x, y, radius) = (Number(x), Number(y), Number(radius));
        self.push(format_args!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>"));
    }

    /// What is drawn next, until `close`, shows this text when pointed at.
    pub(crate) fn open(&mut self, class: &str, title: &str) {
        self.push(format_args!("<g class=\"{class}\"><title>{}</title>", Escaped(title)));
    }

    pub(crate) fn close(&mut self) {
        self.push(format_args!("</g>"));
    }

    /// The whole element. Readers of screens get the title and the description; the id must be
    /// the only one of its kind on a page.
    pub(crate) fn finish(self, height: f64, id: &str, title: &str, description: &str) -> Element {
        let id = Escaped(id);
        let names = format!(
            "role=\"img\" aria-labelledby=\"{id}-title {id}-text\">\
             <title id=\"{id}-title\">{title}</title><desc id=\"{id}-text\">{text}</desc>\n",
            title = Escaped(title),
            text = Escaped(description),
        );
        Element { size: (self.width, height), names, elements: self.elements }
    }

    fn push(&mut self, element: fmt::Arguments<'_>) {
        write(&mut self.elements, element);
        self.elements.push('\n');
    }
}

/// A finished drawing.
#[derive(Debug)]
pub(crate) struct Element {
    size: (f64, f64),
    names: String,
    elements: String,
}

impl Element {
    /// For a page that has `CHART_CSS`.
    pub(crate) fn inline(&self) -> String {
        format!("{}{}{}</svg>", self.start(0.0), self.names, self.elements)
    }

    /// A file of its own, which follows the reader's light or dark. It brings its ground along:
    /// what is around it may be light for a reader who likes it dark.
    pub(crate) fn alone(&self) -> String {
        let (wide, high) = (self.size.0 + 2.0 * MARGIN, self.size.1 + 2.0 * MARGIN);
        let (wide, high, corner) = (Number(wide), Number(high), Number(-MARGIN));
        format!(
            "{}{}<style>\n{CHART_CSS}</style>\n\
             <rect class=\"ground\" x=\"{corner}\" y=\"{corner}\" width=\"{wide}\" \
             height=\"{high}\"/>\n{}</svg>\n",
            self.start(MARGIN),
            self.names,
            self.elements
        )
    }

    fn start(&self, margin: f64) -> String {
        let (wide, high) = (self.size.0 + 2.0 * margin, self.size.1 + 2.0 * margin);
        let (wide, high, corner) = (Number(wide), Number(high), Number(-margin));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" \
             viewBox=\"{corner} {corner} {wide} {high}\" "
        )
    }
}

/// How wide a text is, or a little more.
pub(crate) fn text_width(text: &str, font_size: f64) -> f64 {
    text.chars().map(|_| font_size * CHARACTER_WIDTH).sum()
}

/// The text, or as much of it as fits and an ellipsis.
pub(crate) fn shortened(text: &str, font_size: f64, width: f64) -> String {
    // Widths that were summed up in another order are a hair off.
    if text_width(text, font_size) <= width + 0.1 {
        return text.to_owned();
    }
    let mut kept = text.to_owned();
    while !kept.is_empty() && text_width(&kept, font_size) + font_size > width {
        kept.pop();
    }
    format!("{}…", kept.trim_end())
}

/// The text in lines that fit.
pub(crate) fn wrapped(text: &str, font_size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(line, font_size) + text_width(word, font_size) < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn write(to: &mut String, what: fmt::Arguments<'_>) {
    to.write_fmt(what).expect("a String takes all that is written to it");
}

/// A coordinate: tenths of a pixel are enough, and readable.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_assert!(self.0.is_finite(), "a place in a drawing is a number");
        let tenths = format!("{:.1}", self.0);
        to.write_str(tenths.strip_suffix(".0").unwrap_or(&tenths))
    }
}

/// Text as XML and HTML read it. What neither of them can have becomes the sign for that.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => to.write_str("&amp;")?,
                '<' => to.write_str("&lt;")?,
                '>' => to.write_str("&gt;")?,
                '"' => to.write_str("&quot;")?,
                '\t' | '\n' | '\r' => to.write_char(' ')?,
                '\u{fffe}' | '\u{ffff}' => to.write_char(char::REPLACEMENT_CHARACTER)?,
                control if control.is_control() => to.write_char(char::REPLACEMENT_CHARACTER)?,
                plain => to.write_char(plain)?,
            }
        }
        Ok(())
    }
}
