//! Prepares the body of a form for `s3s`: cuts it into pieces that `s3s` can read, and copies its
//! fields, because `s3s` passes on only those that it knows.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use futures_util::{StreamExt, stream};

/// The largest piece of a form that is passed to `s3s`. Its parser fails if the rest of one piece
/// and the next piece exceed 64 KiB together.
const MAX_FRAME_BYTES: usize = 16 * 1024;

/// The most bytes that are copied. S3 accepts 20,000 bytes before the file, which comes last.
const MAX_FIELDS_BYTES: usize = 64 * 1024;

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type
        .and_then(|it| it.get(..FORM.len()))
        .is_some_and(|it| it.eq_ignore_ascii_case(FORM))
}

/// The beginning of a form, as far as it has arrived. It is an extension of the request.
#[derive(Clone, Debug, Default)]
pub(super) struct FormFields(Arc<Mutex<Vec<u8>>>);

impl FormFields {
    fn copy(&self, frame: &Bytes) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_FIELDS_BYTES - bytes.len();
        bytes.extend_from_slice(&frame[..room.min(frame.len())]);
    }

    /// The value of the field of this name.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The fields are UTF-8. What follows may be bytes of the file.
        let text = bytes.utf8_chunks().next()?.valid();
        // The first line is the boundary.
        let (boundary, _) = text.split_once("\r\n")?;
        let name = format!("name=\"{name}\"");
        text.split(boundary).find_map(|part| {
            let (head, value) = part.split_once("\r\n\r\n")?;
            let mut parameters = head.split([';', '\r', '\n']);
            let is_it = parameters.any(|parameter| parameter.trim() == name);
            is_it.then(|| value.strip_suffix("\r\n").unwrap_or(value).to_owned())
        })
    }
}

/// Cuts the body of a form into pieces. Other bodies stay whole, because a cut body has no known
/// length.
pub(super) fn readable(mut request: Request) -> Request {
    if !is_form(request.headers()) {
        return request;
    }
    let fields = FormFields::default();
    request.extensions_mut().insert(fields.clone());
    request.map(|body| {
        let frames = body.into_data_stream().flat_map(move |frame| match frame {
            Ok(mut bytes) => {
                fields.copy(&bytes);
                stream::iter(std::iter::from_fn(move || {
                    let next = bytes.split_to(MAX_FRAME_BYTES.min(bytes.len()));
                    (!next.is_empty()).then_some(Ok(next))
                }))
                .left_stream()
            }
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        Body::from_stream(frames)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name_and_by_nothing_in_a_value() {
        let fields = FormFields::default();
        let form = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nname=\"tagging\"\r\n\
             --b\r\ncontent-disposition: form-data; name=\"tagging\"\r\n\r\n<Tagging>\r\n한</Tagging>\r\n\
             --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";
        let form = [form.as_bytes(), b"\xff\xd8 is no UTF-8"].concat();
        for piece in form.chunks(7) {
            fields.copy(&Bytes::copy_from_slice(piece));
        }
        assert_eq!(fields.get("a").as_deref(), Some("name=\"tagging\""));
        let tagging = fields.get("tagging");
        assert_eq!(tagging.as_deref(), Some("<Tagging>\r\n한</Tagging>"));
        assert_eq!(fields.get("key"), None);
    }

    #[test]
    fn no_more_is_copied_than_a_form_may_have_before_its_file() {
        let fields = FormFields::default();
        for _ in 0..9 {
            fields.copy(&Bytes::from(vec![0; 10_000]));
        }
        assert_eq!(fields.0.lock().unwrap().len(), MAX_FIELDS_BYTES);
    }
}
