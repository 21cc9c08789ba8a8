//! Which precompressed file a client would rather have, by Accept-Encoding (RFC 9110, section
//! 12.5.3). PURE. Called by `offer.rs` and `files.rs`.

use http::header::{ACCEPT_ENCODING, HeaderMap};
use smallvec::SmallVec;

/// A content coding that files may lie beside their plain form in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
    Deflate,
}

impl Coding {
    /// The one that makes smaller files first.
    pub(crate) const ALL: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    /// Its name in HTTP.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// What the names of such files end in.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
            Self::Deflate => ".zz",
        }
    }
}

/// A set of codings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codings([bool; Coding::ALL.len()]);

impl Codings {
    /// Those that clients of today take; what `deflate` is was never agreed on.
    pub(crate) fn of_today() -> Self {
        [Coding::Zstd, Coding::Brotli, Coding::Gzip].into_iter().fold(Self::default(), Self::with)
    }

    pub(crate) fn with(mut self, coding: Coding) -> Self {
        self.0[coding as usize] = true;
        self
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Coding> {
        Coding::ALL.into_iter().filter(move |coding| self.0[*coding as usize])
    }
}

/// Those of `offered` that the client would rather have than the plain file, the best first.
/// Equal weights are ordered as [`Coding::ALL`] is.
pub(crate) fn preferred(headers: &HeaderMap, offered: Codings) -> SmallVec<[Coding; 4]> {
    let lines = headers.get_all(ACCEPT_ENCODING).into_iter();
    let elements: SmallVec<[(&str, u16); 8]> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(element)
        .collect();
    let weight = |names: &[&str]| {
        let named = elements
            .iter()
            .find(|(name, _)| names.iter().any(|known| name.eq_ignore_ascii_case(known)));
        let any = || elements.iter().find(|(name, _)| *name == "*");
        named.or_else(any).map(|(_, weight)| *weight)
    };
    let plain = weight(&["identity"]).unwrap_or(0);
    let mut weighed: SmallVec<[(Coding, u16); 4]> = offered
        .iter()
        .filter_map(|coding| {
            let names: &[&str] =
                if coding == Coding::Gzip { &["gzip", "x-gzip"] } else { &[coding.name()] };
            let weight = weight(names)?;
            (weight > 0 && weight >= plain).then_some((coding, weight))
        })
        .collect();
    weighed.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    weighed.into_iter().map(|(coding, _)| coding).collect()
}

/// A coding's name and its weight in thousandths; `None` when malformed.
fn element(text: &str) -> Option<(&str, u16)> {
    let (name, weight) = match text.split_once(';') {
        None => (text, 1000),
        Some((name, parameter)) => {
            let (key, value) = parameter.trim().split_once('=')?;
            if !key.eq_ignore_ascii_case("q") {
                return None;
            }
            (name, thousandths(value)?)
        }
    };
    let name = name.trim();
    (!name.is_empty()).then_some((name, weight))
}

/// A qvalue (section 12.4.2): 0 to 1, with at most three decimals.
fn thousandths(value: &str) -> Option<u16> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digit = |place| decimals.as_bytes().get(place).map_or(0, |digit| u16::from(digit - b'0'));
    match (whole, digit(0) * 100 + digit(1) * 10 + digit(2)) {
        ("0", decimals) => Some(decimals),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn all() -> Codings {
        Coding::ALL.into_iter().fold(Codings::default(), Codings::with)
    }

    #[track_caller]
    fn check(accept: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        let names: Vec<_> = preferred(&headers, all()).into_iter().map(Coding::name).collect();
        assert_eq!(names.join(" "), expected, "{accept:?}");
    }

    #[test]
    fn the_heaviest_goes_first() {
        check("gzip", "gzip");
        check("gzip, deflate, br, zstd", "zstd br gzip deflate");
        check("gzip;q=1.0, br;q=0.5, zstd;q=0.501", "gzip zstd br");
        check("GZIP ; q=0.8 , x-unknown", "gzip");
        check("x-gzip", "gzip");
        check("*", "zstd br gzip deflate");
        check("*;q=0.1, br;q=0", "zstd gzip deflate");
        check("br, identity;q=0", "br");
    }

    #[test]
    fn the_plain_file_may_be_preferred() {
        check("", "");
        check("identity", "");
        check("gzip;q=0", "");
        check("identity, gzip;q=0.5", "");
        check("*;q=0", "");
        check("gzip;q=2", "");
        check("gzip;q=0.1234", "");
        check("gzip;level=9", "");
        check("gzip;q=1.001", "");
    }

    #[test]
    fn only_what_is_offered() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("zstd, gzip"));
        assert_eq!(preferred(&headers, Codings::default().with(Coding::Gzip))[..], [Coding::Gzip]);
        assert!(preferred(&HeaderMap::new(), all()).is_empty());
    }

    /// A weight as RFC 9110, section 12.4.2 has it, or one that it has not.
    fn weight() -> impl Strategy<Value = (String, Option<u16>)> {
        prop_oneof![
            Just((String::new(), Some(1000))),
            (0..=1000_u16).prop_map(|thousandths| {
                let decimals = format!("{:03}", thousandths % 1000);
                let short = decimals.trim_end_matches('0');
                let point = if short.is_empty() { "" } else { "." };
                (format!("; q={}{point}{short}", thousandths / 1000), Some(thousandths))
            }),
            "; q=[2-9]|;q=1\\.[0-9]{0,2}[1-9]|;q=0\\.[0-9]{4,6}|;q=-1|;q=|;x=1"
                .prop_map(|malformed| (malformed, None)),
        ]
    }

    proptest! {
        #[test]
        fn the_best_is_what_the_section_says(
            weights in prop::collection::vec((0..5_usize, weight()), 0..6),
        ) {
            const NAMES: [&str; 5] = ["gzip", "br", "zstd", "identity", "*"];
            let written: Vec<String> =
                weights.iter().map(|(name, (text, _))| format!("{}{text}", NAMES[*name])).collect();
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, written.join(" , ").parse().unwrap());
            // Of two weights of one name, the first that is well-formed.
            let named = |sought: usize| {
                weights.iter().filter(|(name, _)| *name == sought).find_map(|(_, (_, q))| *q)
            };
            let of = |sought: usize| named(sought).or(named(4));
            let plain = of(3).unwrap_or(0);
            let offered = [(2, Coding::Zstd), (1, Coding::Brotli), (0, Coding::Gzip)];
            let mut expected: Vec<(u16, Coding)> = offered
                .iter()
                .filter_map(|(name, coding)| Some((of(*name)?, *coding)))
                .filter(|(weight, _)| *weight > 0 && *weight >= plain)
                .collect();
            expected.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
            let expected: Vec<Coding> = expected.into_iter().map(|(_, coding)| coding).collect();
            let all = offered.iter().fold(Codings::default(), |all, (_, coding)| all.with(*coding));
            let found = preferred(&headers, all);
            prop_assert_eq!(found.as_slice(), expected, "{:?}", written);
        }

        #[test]
        fn any_value_is_answered(value in "[ -~]{0,80}") {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(&value).unwrap());
            prop_assert!(preferred(&headers, all()).len() <= Coding::ALL.len());
        }
    }
}
