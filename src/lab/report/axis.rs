//! PURE: numbers to places on an axis, and the numbers that an axis shows.

use super::model::Scale;
use super::unit::Unit;

/// At most so many ticks; text on a narrow screen has no room for more.
const TICKS_MAX: usize = 6;

/// From the number at its beginning to the one at its end, both finite, the end above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    scale: Scale,
    start: f64,
    end: f64,
}

impl Axis {
    /// One that shows all of these. A logarithmic one has no room for zero and less: if there is
    /// such a number the axis is linear.
    pub(crate) fn over(numbers: impl IntoIterator<Item = f64>, scale: Scale) -> Self {
        let finite = numbers.into_iter().filter(|number| number.is_finite());
        let (low, high) = finite
            .fold((f64::MAX, f64::MIN), |(low, high), number| (low.min(number), high.max(number)));
        match scale {
            Scale::Log if low.is_normal() && low > 0.0 && low <= high => {
                let (start, end) = if low < high { (low, high) } else { (low / 2.0, high * 2.0) };
                Self { scale, start, end: end.min(f64::MAX) }
            }
            Scale::Log | Scale::Linear => {
                let end = if high.is_normal() && high > 0.0 { high } else { 1.0 };
                Self { scale: Scale::Linear, start: 0.0, end }
            }
        }
    }

    pub(crate) fn is_log(&self) -> bool {
        self.scale == Scale::Log
    }

    /// Where a number stands, from 0 at the start to 1 at the end; what lies outside is at the
    /// nearer end.
    pub(crate) fn place(&self, number: f64) -> f64 {
        if number.is_nan() {
            return 0.0;
        }
        let number = number.clamp(self.start, self.end);
        match self.scale {
            Scale::Linear => number / self.end,
            Scale::Log => ((number.ln() - self.start.ln()) / (self.end.ln() - self.start.ln()))
                .clamp(0.0, 1.0),
        }
    }

    /// The same axis, up to the next round number, so that its last tick is above all numbers.
    pub(crate) fn rounded(self, unit: Option<Unit>) -> Self {
        match self.scale {
            Scale::Linear => {
                let step = linear_step(self.end, unit);
                let end = (self.end / step).ceil() * step;
                Self { end: if end.is_finite() { end } else { self.end }, ..self }
            }
            Scale::Log => {
                let start = 10f64.powf(self.start.log10().floor());
                let end = 10f64.powf(self.end.log10().ceil());
                let (start, end) = if start.is_normal() { (start, end) } else { (self.start, end) };
                Self { start, end: if end.is_finite() { end } else { self.end }, ..self }
            }
        }
    }

    /// Round numbers within the axis, from low to high.
    pub(crate) fn ticks(&self, unit: Option<Unit>) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = linear_step(self.end, unit);
                let steps = (0..=2 * TICKS_MAX).map(|index| as_number(index) * step);
                // Sums of tenths are a hair off.
                steps.filter(|&tick| tick <= self.end * 1.000_001).collect()
            }
            Scale::Log => self.powers(if unit == Some(Unit::Bytes) { 2.0 } else { 10.0 }),
        }
    }

    /// Every power of the base within the axis, or every second one, third one, ...
    fn powers(&self, base: f64) -> Vec<f64> {
        let logarithm = |number: f64| number.ln() / base.ln();
        let first = (logarithm(self.start) - 1e-9).ceil();
        let last = (logarithm(self.end) + 1e-9).floor();
        let count = last - first + 1.0;
        let every = (count / as_number(TICKS_MAX)).ceil().max(1.0);
        let powers = (0..TICKS_MAX).map(|index| first + every * as_number(index));
        powers.take_while(|&power| power <= last).map(|power| base.powf(power)).collect()
    }
}

/// 1, 2 or 5 times a power of ten, such that few steps reach the end; for bytes counted in the
/// largest unit below it.
fn linear_step(end: f64, unit: Option<Unit>) -> f64 {
    let mut whole = 1.0;
    while unit == Some(Unit::Bytes) && whole * 1024.0 <= end {
        whole *= 1024.0;
    }
    let least = end / whole / as_number(TICKS_MAX - 1);
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= least * 0.999_999);
    let step = step.unwrap_or(10.0) * power * whole;
    if step.is_normal() && step.is_finite() { step } else { end }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows and ticks are far below 2^52")]
pub(crate) fn as_number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn linear_axes_begin_at_zero_and_end_at_a_round_number() {
        for (high, unit, ticks) in [
            (32.0, None, &[0.0, 10.0, 20.0, 30.0, 40.0][..]),
            (1.0, None, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (97_000.0, None, &[0.0, 20e3, 40e3, 60e3, 80e3, 100e3]),
            (4096.0, Some(Unit::Bytes), &[0.0, 1024.0, 2048.0, 3072.0, 4096.0]),
        ] {
            let shown = Axis::over([high, 0.5 * high], Scale::Linear).rounded(unit).ticks(unit);
            let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * high;
            assert_eq!(shown.len(), ticks.len(), "{shown:?}");
            assert!(shown.iter().zip(ticks).all(is_near), "{shown:?}, not {ticks:?}");
        }
    }

    #[test]
    fn logarithmic_axes_show_powers() {
        let sizes = Axis::over([1024.0, 1_073_741_824.0], Scale::Log);
        let powers: Vec<f64> =
            [10, 14, 18, 22, 26, 30].map(|power| 2f64.powi(power)).into_iter().collect();
        assert_eq!(sizes.ticks(Some(Unit::Bytes)), powers);
        assert!((sizes.place(1_048_576.0) - 0.5).abs() < 1e-9, "halfway in powers");
        let connections = Axis::over([1.0, 10_000.0], Scale::Log);
        assert_eq!(connections.ticks(None), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        let rates = Axis::over([22.0, 92_300.0], Scale::Log).rounded(None);
        assert_eq!(rates.ticks(None), [10.0, 100.0, 1000.0, 10_000.0, 100_000.0]);
    }

    #[test]
    fn zero_has_no_place_on_a_logarithmic_axis() {
        assert!(!Axis::over([0.0, 10.0], Scale::Log).is_log());
        assert!(!Axis::over([], Scale::Log).is_log());
    }

    proptest! {
        #[test]
        fn every_number_has_a_place_on_every_axis(
            numbers in prop::collection::vec(prop::num::f64::ANY, 0..6),
            sought in prop::num::f64::ANY,
            log: bool,
            bytes: bool,
        ) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let unit = bytes.then_some(Unit::Bytes);
            let bare = Axis::over(numbers.iter().copied(), scale);
            for axis in [bare, bare.rounded(unit)] {
                prop_assert!(axis.start < axis.end, "{axis:?}");
                for number in numbers.iter().copied().chain([sought]) {
                    let place = axis.place(number);
                    prop_assert!((0.0..=1.0).contains(&place), "{number} at {place} of {axis:?}");
                }
                let ticks = axis.ticks(unit);
                prop_assert!(ticks.len() <= 2 * TICKS_MAX + 1, "{ticks:?} of {axis:?}");
                prop_assert!(ticks.iter().all(|tick| tick.is_finite()), "{ticks:?} of {axis:?}");
                prop_assert!(ticks.is_sorted(), "{ticks:?}");
            }
        }
    }
}
