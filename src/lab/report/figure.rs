//! PURE: one quantity and all samples of it, and what stands in a table where one was sought.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Above this spread a figure is marked as noisy in every rendering. The lab compares servers
/// that differ by a tenth; rounds that lie a quarter apart can order two such at random.
pub(crate) const NOISY_SPREAD: f64 = 0.25;

/// All samples of one quantity, one a round: at least one, and all of them finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(crate) struct Figure {
    samples: Vec<f64>,
    /// The same, from the lowest to the highest.
    sorted: Vec<f64>,
}

impl Figure {
    /// In the order of the rounds.
    pub(crate) fn new(samples: Vec<f64>) -> Result<Self, NotAFigure> {
        if samples.is_empty() {
            return Err(NotAFigure::NoSample);
        }
        if let Some(&sample) = samples.iter().find(|sample| !sample.is_finite()) {
            return Err(NotAFigure::NotFinite(sample));
        }
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        Ok(Self { samples, sorted })
    }

    pub(crate) fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// The middle sample; with an even number of them, halfway between the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        if self.sorted.len() % 2 == 1 {
            return self.sorted[middle];
        }
        f64::midpoint(self.sorted[middle - 1], self.sorted[middle])
    }

    pub(crate) fn min(&self) -> f64 {
        self.sorted[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// (max - min) / median; 0 when all samples are the same, infinite when only the median is 0.
    pub(crate) fn spread(&self) -> f64 {
        let distance = self.max() - self.min();
        if distance == 0.0 { 0.0 } else { (distance / self.median()).abs() }
    }

    /// "(5%)"; empty when there is nothing between the lowest and the highest round.
    pub(crate) fn print_spread(&self) -> String {
        match self.spread() * 100.0 {
            0.0 => String::new(),
            percent if percent < 0.5 => "(<1%)".to_owned(),
            percent if percent > 999.0 => "(>999%)".to_owned(),
            percent => format!("({percent:.0}%)"),
        }
    }

    /// Whether the rounds lie too far apart to be relied on. One round cannot tell.
    pub(crate) fn is_noisy(&self) -> bool {
        self.spread() > NOISY_SPREAD
    }
}

/// Why samples make no figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NotAFigure {
    NoSample,
    NotFinite(f64),
}

impl fmt::Display for NotAFigure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSample => write!(to, "no sample was taken"),
            Self::NotFinite(sample) => write!(to, "a sample is {sample}, which is no number"),
        }
    }
}

/// A figure as JSON has it: what follows from the samples is written for readers, not read back.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(skip_deserializing)]
    median: f64,
    #[serde(skip_deserializing)]
    min: f64,
    #[serde(skip_deserializing)]
    max: f64,
    #[serde(skip_deserializing)]
    noisy: bool,
    samples: Vec<f64>,
}

impl From<Figure> for Written {
    fn from(figure: Figure) -> Self {
        let (median, min, max) = (figure.median(), figure.min(), figure.max());
        Self { median, min, max, noisy: figure.is_noisy(), samples: figure.samples }
    }
}

impl TryFrom<Written> for Figure {
    type Error = NotAFigure;

    fn try_from(written: Written) -> Result<Self, NotAFigure> {
        Self::new(written.samples)
    }
}

/// What stands in one place of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cell {
    Measured(Figure),
    /// An answer in words, such as "by reference".
    Said(String),
    /// Why there is none, such as "needs root".
    Missing(String),
}

impl Cell {
    /// Samples that make no figure are missing, and the cell says why.
    pub(crate) fn measured(samples: impl IntoIterator<Item = f64>) -> Self {
        match Figure::new(samples.into_iter().collect()) {
            Ok(figure) => Self::Measured(figure),
            Err(why) => Self::Missing(why.to_string()),
        }
    }

    pub(crate) fn said(words: impl Into<String>) -> Self {
        Self::Said(words.into())
    }

    pub(crate) fn missing(why: impl Into<String>) -> Self {
        Self::Missing(why.into())
    }

    /// None for words, and for what is missing.
    pub(crate) fn figure(&self) -> Option<&Figure> {
        match self {
            Self::Measured(figure) => Some(figure),
            Self::Said(_) | Self::Missing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[f64]) -> Figure {
        Figure::new(Vec::from(samples)).unwrap()
    }

    #[test]
    fn the_median_is_the_middle_of_the_rounds_in_any_order() {
        for (samples, median, spread) in [
            (&[3.0][..], 3.0, 0.0),
            (&[4.0, 2.0], 3.0, 2.0 / 3.0),
            (&[9.0, 1.0, 2.0], 2.0, 4.0),
            (&[0.0, 0.0, 0.0], 0.0, 0.0),
            (&[0.0, 0.0, 1.0], 0.0, f64::INFINITY),
        ] {
            assert_eq!(figure(samples).median(), median, "{samples:?}");
            assert_eq!(figure(samples).spread(), spread, "{samples:?}");
            assert_eq!(figure(samples).samples(), samples, "rounds keep their order");
        }
    }

    #[test]
    fn figures_whose_rounds_lie_far_apart_are_noisy() {
        assert!(!figure(&[100.0]).is_noisy());
        assert!(!figure(&[90.0, 100.0, 115.0]).is_noisy());
        assert!(figure(&[90.0, 100.0, 116.0]).is_noisy());
        assert!(figure(&[0.0, 0.0, 1.0]).is_noisy());
    }

    #[test]
    fn what_is_no_figure_says_why() {
        assert_eq!(Cell::measured([]), Cell::missing("no sample was taken"));
        let infinite = Cell::measured([1.0, f64::INFINITY]);
        assert_eq!(infinite, Cell::missing("a sample is inf, which is no number"));
    }

    #[test]
    fn json_shows_what_follows_from_the_samples_and_believes_only_these() {
        let json = serde_json::to_value(Cell::measured([2.0, 1.0, 3.0])).unwrap();
        let median = &json["measured"]["median"];
        assert_eq!(median.as_f64(), Some(2.0), "{json}");
        let forged = r#"{"measured": {"median": 9.0, "samples": [1.0, 2.0, 3.0]}}"#;
        assert_eq!(serde_json::from_str::<Cell>(forged).unwrap(), Cell::measured([1.0, 2.0, 3.0]));
        let empty = serde_json::from_str::<Cell>(r#"{"measured": {"samples": []}}"#).unwrap_err();
        assert!(empty.to_string().contains("no sample was taken"), "{empty}");
    }
}
