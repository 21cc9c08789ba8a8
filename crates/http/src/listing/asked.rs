//! What a request wants of a directory: its query, and page or JSON by Accept (RFC 9110, section
//! 12.5.1). PURE. Called by `mod.rs`.

use http::header::{ACCEPT, HeaderMap};
use percent_encoding::percent_decode_str;

/// The longest filter that is looked for; a name has at most 255 bytes.
const FILTER_CHARS_MAX: usize = 255;

/// What a directory is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Page,
    Json,
}

/// What entries are put in order by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Name,
    Size,
    Date,
}

impl Sort {
    pub(crate) const ALL: [Self; 3] = [Self::Name, Self::Size, Self::Date];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Date => "date",
        }
    }
}

/// The query of a directory's target; what it does not know is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) sort: Sort,
    pub(crate) descending: bool,
    /// What names have to contain, in any case.
    pub(crate) filter: String,
    /// From 0 on.
    pub(crate) page: usize,
    pub(crate) json: bool,
}

impl Asked {
    pub(crate) fn parse(query: &str) -> Self {
        let mut asked = Self::default();
        for (key, value) in pairs(query) {
            match key {
                "sort" => {
                    let known = Sort::ALL.into_iter().find(|sort| sort.name() == value);
                    asked.sort = known.unwrap_or_default();
                }
                "order" => asked.descending = value == "desc",
                "q" => asked.filter = value.chars().take(FILTER_CHARS_MAX).collect(),
                "page" => asked.page = value.parse().unwrap_or(1_usize).saturating_sub(1),
                "json" => asked.json = true,
                _ => {}
            }
        }
        asked
    }

    /// The query that asks for another page of the same.
    pub(crate) fn for_page(&self, page: usize) -> String {
        let Self { sort, descending, filter, json, .. } = self;
        let mut query = format!("?page={}", page + 1);
        if (*sort, *descending) != (Sort::Name, false) {
            let order = if *descending { "desc" } else { "asc" };
            query += &format!("&sort={}&order={order}", sort.name());
        }
        if !filter.is_empty() {
            query += &format!("&q={}", crate::resolve::encoded(filter.as_bytes()));
        }
        if *json {
            query += "&json";
        }
        query
    }

    /// As what the directory is to be shown.
    pub(crate) fn form(&self, headers: &HeaderMap) -> Form {
        if self.json || prefers_json(headers) { Form::Json } else { Form::Page }
    }
}

/// Keys and values of a query as forms send it: a `+` is a space.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        (key, percent_decode_str(&value).decode_utf8_lossy().into_owned())
    })
}

/// Programs name the type that they want (`application/json`, often with `*/*` behind it);
/// browsers name `text/html`. Of two that weigh the same, the one that was named wins.
fn prefers_json(headers: &HeaderMap) -> bool {
    let json = weight(headers, "application", "json");
    json.quality > 0 && json > weight(headers, "text", "html")
}

/// How much a media type is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    /// In thousandths.
    quality: u16,
    /// 2 for the type itself, 1 for `type/*`, 0 for `*/*` or nothing.
    precision: u8,
}

fn weight(headers: &HeaderMap, main: &str, sub: &str) -> Weight {
    let lines = headers.get_all(ACCEPT).into_iter().filter_map(|line| line.to_str().ok());
    let mut found = Weight::default();
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parameters = range.split(';').map(str::trim);
        let name = parameters.next().unwrap_or_default().to_ascii_lowercase();
        let precision = match name.split_once('/') {
            Some((one, two)) if one == main && two == sub => 2,
            Some((one, "*")) if one == main => 1,
            Some(("*", "*")) => 0,
            _ => continue,
        };
        let quality = parameters.find_map(|parameter| parameter.strip_prefix("q="));
        let quality = quality.map_or(1000, thousandths);
        if precision >= found.precision {
            found = Weight { quality, precision };
        }
    }
    found
}

/// A quality value (section 12.4.2); what is none counts as no wish at all.
fn thousandths(quality: &str) -> u16 {
    let (whole, digits) = quality.split_once('.').unwrap_or((quality, ""));
    let is_number = digits.len() <= 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
    match whole {
        "1" if is_number => 1000,
        "0" if is_number => format!("{digits:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_are_read() {
        let plain = Asked::default();
        let filter = |filter: &str| Asked { filter: filter.to_owned(), ..plain.clone() };
        for (query, expected) in [
            ("", plain.clone()),
            ("sort=name&order=asc", plain.clone()),
            ("sort=size&order=desc", Asked { sort: Sort::Size, descending: true, ..plain.clone() }),
            ("sort=bogus&other=1&=&&", plain.clone()),
            ("q=a+b%20c%26", filter("a b c&")),
            ("q=%ff", filter("\u{fffd}")),
            ("q=", plain.clone()),
            ("page=3", Asked { page: 2, ..plain.clone() }),
            ("page=0", plain.clone()),
            ("page=-1", plain.clone()),
            ("page=99999999999999999999999", plain.clone()),
            ("json", Asked { json: true, ..plain.clone() }),
        ] {
            assert_eq!(Asked::parse(query), expected, "{query}");
        }
    }

    #[test]
    fn json_is_for_those_who_name_it() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, expected) in [
            ("", false),
            ("*/*", false),
            (browser, false),
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json, text/plain, */*", true),
            ("application/json;q=0.9, */*;q=0.8", true),
            ("application/json;q=0.5, text/html", false),
            ("application/json;q=0.5, text/html;q=0.4", true),
            ("application/json, text/html", false),
            ("text/html;q=0, application/*", true),
            ("application/json;q=0", false),
            ("application/json;q=0.000, text/html;q=0", false),
            ("application/json;q=x", false),
            ("text/*, application/json", true),
            ("application/json;charset=utf-8;q=0.7, */*;q=0.1", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers_json(&headers), expected, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_read_back(
            sort in 0_usize..3, descending: bool, filter: String, page in 0_usize..1 << 40,
            json: bool,
        ) {
            let filter = filter.chars().take(FILTER_CHARS_MAX).collect();
            let asked = Asked { sort: Sort::ALL[sort], descending, filter, page, json };
            let query = asked.for_page(page);
            prop_assert_eq!(Asked::parse(query.strip_prefix('?').unwrap()), asked);
        }

        #[test]
        fn any_query_is_answered(query: String) {
            Asked::parse(&query);
        }

        #[test]
        fn any_accept_is_answered(accept in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::try_from(accept).unwrap());
            prefers_json(&headers);
        }
    }
}
