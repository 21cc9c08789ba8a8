//! How one file is offered by `ServeDir` and `ServeFile`: plain or precompressed, with or without
//! several ranges at once.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RANGE, VARY};
use http::{HeaderMap, HeaderValue, Method, Response};
use pagewire_engine::SourceFile;
use smallvec::SmallVec;

use crate::body::FileBody;
use crate::encoding::{Coding, Codings, preferred};
use crate::partial::narrowed;
use crate::respond::{FileHead, whole_file};

/// The settings that the two services have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offer {
    pub(crate) codings: Codings,
    pub(crate) ignore_multi_range: bool,
}

impl Offer {
    /// The precompressed forms to look for, the best first.
    pub(crate) fn preferred(self, headers: &HeaderMap) -> SmallVec<[Coding; 4]> {
        if self.codings.is_empty() { SmallVec::new() } else { preferred(headers, self.codings) }
    }

    /// The response that sends `source`, which is of `media_type` when decoded.
    pub(crate) fn answer(
        self,
        method: &Method,
        headers: &HeaderMap,
        source: &SourceFile,
        head: &FileHead,
        coding: Option<(Coding, HeaderValue)>,
    ) -> Response<FileBody> {
        let mut whole = whole_file(source, head);
        if !self.codings.is_empty() {
            whole.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some((coding, media_type)) = coding {
            let coding = HeaderValue::from_static(coding.name());
            whole.headers_mut().insert(CONTENT_ENCODING, coding);
            whole.headers_mut().insert(CONTENT_TYPE, media_type);
        }
        let response = narrowed(whole, source, method, &self.obeyed(headers));
        if *method == Method::HEAD { response.map(|_| FileBody::default()) } else { response }
    }

    fn obeyed(self, headers: &HeaderMap) -> Cow<'_, HeaderMap> {
        let range = headers.get(RANGE).filter(|_| self.ignore_multi_range);
        if range.is_none_or(|range| !range.as_bytes().contains(&b',')) {
            return Cow::Borrowed(headers);
        }
        let mut headers = headers.clone();
        headers.remove(RANGE);
        Cow::Owned(headers)
    }
}
