//! Which files leave most, lately: a sketch of bounded size (Metwally and others, "space-saving").
//! PURE.

use std::collections::HashMap;

/// So many files are counted. Of those that leave more than this part of all bytes none is missed.
const COUNTED_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Hottest(HashMap<String, Heat>);

/// What left of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heat {
    pub(crate) bytes: u64,
    pub(crate) responses: u64,
}

impl Hottest {
    pub(crate) fn count(&mut self, path: &str, bytes: u64) {
        if let Some(heat) = self.0.get_mut(path) {
            heat.bytes += bytes;
            heat.responses += 1;
            return;
        }
        let mut heat = Heat { bytes, responses: 1 };
        if self.0.len() >= COUNTED_MAX {
            // The newcomer takes the place, and the heat, of the coldest: it may have been there
            // before, and a file that keeps coming back is not to be forgotten again and again.
            let coldest = self.0.iter().min_by_key(|(_, heat)| heat.bytes);
            let Some((coldest, place)) = coldest.map(|(path, heat)| (path.clone(), *heat)) else {
                return;
            };
            heat.bytes += place.bytes;
            self.0.remove(&coldest);
        }
        self.0.insert(path.to_owned(), heat);
    }

    /// A minute has passed: what was before counts half.
    pub(crate) fn cool(&mut self) {
        self.0.retain(|_, heat| {
            *heat = Heat { bytes: heat.bytes / 2, responses: heat.responses / 2 };
            heat.responses > 0
        });
    }

    /// The hottest `max`, from the hottest on.
    pub(crate) fn top(&self, max: usize) -> Vec<(String, Heat)> {
        let mut all: Vec<_> = self.0.iter().map(|(path, heat)| (path.clone(), *heat)).collect();
        all.sort_by(|(one, a), (two, b)| b.bytes.cmp(&a.bytes).then_with(|| one.cmp(two)));
        all.truncate(max);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_files_are_found_among_many_cold_ones() {
        let mut hottest = Hottest::default();
        for round in 0..10_000 {
            hottest.count(&format!("/cold/{round}"), 10);
            hottest.count("/hot", 1_000);
        }
        let top = hottest.top(1);
        assert_eq!(top[0], ("/hot".to_owned(), Heat { bytes: 10_000_000, responses: 10_000 }));
        assert!(hottest.0.len() <= COUNTED_MAX);
    }

    #[test]
    fn what_was_hot_cools_down() {
        let mut hottest = Hottest::default();
        hottest.count("/once", 8);
        hottest.cool();
        assert_eq!(hottest.top(9), []);
    }
}
