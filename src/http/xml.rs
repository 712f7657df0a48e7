//! S3's XML, for clients that speak it: what they send is read, and what S3 would answer is
//! written.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::Event;

use super::problem::{Problem, catalogue};

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
/// The namespace of S3's documents.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// S3's documents are not nested deeper than four levels.
const MAX_DEPTH: usize = 8;

/// A part in the list that completes an upload, as it is written there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ListedPart {
    pub(super) number: Option<String>,
    pub(super) etag: Option<String>,
}

/// The parts of a
/// [`CompleteMultipartUpload`](https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html),
/// at most one more than `max`. Other elements are ignored, as S3 ignores them.
///
/// # Errors
///
/// The body is something else. A document type is refused, so that there are no entities to expand.
pub(super) fn listed_parts(body: &[u8], max: usize) -> Result<Vec<ListedPart>, Problem> {
    let text = str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut parts: Vec<ListedPart> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut is_complete = false;
    loop {
        let event = reader.read_event().map_err(|_| not_xml(&reader))?;
        match event {
            Event::Start(_) if is_complete || path.len() >= MAX_DEPTH => {
                return Err(not_xml(&reader));
            }
            Event::Start(start) => {
                let name = String::from_utf8_lossy(start.local_name().into_inner()).into_owned();
                path.push(name);
                match &*names(&path) {
                    [ROOT, "Part"] if parts.len() <= max => parts.push(ListedPart::default()),
                    [ROOT, ..] => {}
                    _ => return Err(invalid("the body is not a `CompleteMultipartUpload`")),
                }
                if let Some(field) = field(&path, &mut parts) {
                    field.get_or_insert_default();
                }
            }
            Event::End(_) => {
                path.pop();
                is_complete = path.is_empty();
            }
            Event::Text(piece) => {
                let piece = piece.decode().map_err(|_| not_xml(&reader))?;
                if path.is_empty() && !piece.trim().is_empty() {
                    return Err(not_xml(&reader));
                }
                append(&path, &mut parts, &piece);
            }
            Event::CData(piece) => {
                let piece = piece.decode().map_err(|_| not_xml(&reader))?;
                append(&path, &mut parts, &piece);
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|_| not_xml(&reader))?;
                let char = reference.resolve_char_ref().ok().flatten();
                let piece = match (char, resolve_predefined_entity(&name)) {
                    (Some(char), _) => char.to_string(),
                    (None, Some(text)) => text.to_owned(),
                    (None, None) => return Err(invalid("the body refers to an unknown entity")),
                };
                append(&path, &mut parts, &piece);
            }
            Event::DocType(_) => return Err(invalid("the body has a document type")),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof if is_complete => return Ok(parts),
            Event::Eof => return Err(not_xml(&reader)),
        }
    }
}

const ROOT: &str = "CompleteMultipartUpload";

fn names(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Where the text of the current element belongs, if anywhere.
fn field<'p>(path: &[String], parts: &'p mut [ListedPart]) -> Option<&'p mut Option<String>> {
    let part = parts.last_mut()?;
    match &*names(path) {
        [ROOT, "Part", "PartNumber"] => Some(&mut part.number),
        [ROOT, "Part", "ETag"] => Some(&mut part.etag),
        _ => None,
    }
}

fn append(path: &[String], parts: &mut [ListedPart], piece: &str) {
    if let Some(Some(text)) = field(path, parts) {
        text.push_str(piece);
    }
}

fn not_xml(reader: &Reader<&[u8]>) -> Problem {
    invalid(&format!(
        "the body is not XML: see byte {}",
        reader.error_position()
    ))
}

fn invalid(detail: &str) -> Problem {
    Problem::with_detail(&catalogue::INVALID_XML, detail)
}

/// An element with this text.
pub(super) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

/// A document as the body of an answer.
#[derive(Debug)]
pub(super) struct Document(String);

impl Document {
    /// With a root of this name, in S3's namespace, and these elements in it.
    pub(super) fn new(root: &str, elements: &str) -> Self {
        Self(format!(
            "{DECLARATION}<{root} xmlns=\"{NAMESPACE}\">{elements}</{root}>"
        ))
    }

    /// [S3's answer to a request that fails](https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html),
    /// which has no namespace.
    pub(super) fn error(code: &str, message: &str, request_id: &str) -> Self {
        Self(format!(
            "{DECLARATION}<Error>{}{}{}</Error>",
            element("Code", code),
            element("Message", message),
            element("RequestId", request_id)
        ))
    }
}

/// Uppy reads the XML of an answer with exactly this type.
impl IntoResponse for Document {
    fn into_response(self) -> Response {
        let content_type = HeaderValue::from_static("application/xml");
        ([(header::CONTENT_TYPE, content_type)], self.0).into_response()
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn part(number: &str, etag: &str) -> ListedPart {
        ListedPart {
            number: Some(number.to_owned()),
            etag: Some(etag.to_owned()),
        }
    }

    #[test]
    fn parts_are_read_as_clients_write_them() {
        let of_uppy = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>a</ETag></Part><Part><PartNumber>2</PartNumber><ETag>b</ETag></Part></CompleteMultipartUpload>";
        let parts = [part("1", "a"), part("2", "b")];
        assert_eq!(listed_parts(of_uppy.as_bytes(), 9).unwrap(), parts);
        let of_sdk = "\u{feff}<?xml version=\"1.0\"?>\n<s:CompleteMultipartUpload xmlns:s=\"x\">\n <!-- & -->
            <s:Part><s:ETag>&quot;a&#34;</s:ETag><s:ChecksumCRC32>x</s:ChecksumCRC32><s:PartNumber>1</s:PartNumber></s:Part>\n</s:CompleteMultipartUpload>\n";
        let parts = listed_parts(of_sdk.as_bytes(), 9).unwrap();
        assert_eq!(parts, [part("1", "\"a\"")]);
        let cdata = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag><![CDATA[a]]></ETag></Part></CompleteMultipartUpload>";
        assert_eq!(listed_parts(cdata.as_bytes(), 9).unwrap(), [part("1", "a")]);
        // Missing values are refused later.
        let empty =
            "<CompleteMultipartUpload><Part/><Part><ETag></ETag></Part></CompleteMultipartUpload>";
        let parts = listed_parts(empty.as_bytes(), 9).unwrap();
        assert_eq!((parts.len(), &parts[0].number), (2, &None));
        let none = listed_parts(b"<CompleteMultipartUpload/>", 9).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn one_part_more_than_there_may_be_is_kept() {
        let part = "<Part><PartNumber>1</PartNumber></Part>";
        let body = format!(
            "<CompleteMultipartUpload>{}</CompleteMultipartUpload>",
            part.repeat(50)
        );
        assert_eq!(listed_parts(body.as_bytes(), 3).unwrap().len(), 4);
    }

    #[test]
    fn what_is_no_list_of_parts_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbb\"><!ENTITY c \"&b;&b;&b;\">]><CompleteMultipartUpload><Part><ETag>&c;</ETag></Part></CompleteMultipartUpload>";
        let nested = "<a>".repeat(100_000);
        for body in [
            "",
            " ",
            "x",
            "{}",
            "<",
            "<a/>",
            "<a></a>",
            "<CompleteMultipartUpload>",
            "<CompleteMultipartUpload><Part></CompleteMultipartUpload>",
            "<CompleteMultipartUpload></CompleteMultipartUpload><a></a>",
            "<CompleteMultipartUpload></CompleteMultipartUpload><a/>",
            "<a/><CompleteMultipartUpload></CompleteMultipartUpload>",
            "<CompleteMultipartUpload></CompleteMultipartUpload>x",
            "<CompleteMultipartUpload><Part><ETag>&b;</ETag></Part></CompleteMultipartUpload>",
            "<CompleteMultipartUpload><Part><ETag>&#0;</ETag></Part></CompleteMultipartUpload>",
            bomb,
            "<!DOCTYPE CompleteMultipartUpload><CompleteMultipartUpload></CompleteMultipartUpload>",
            "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><CompleteMultipartUpload></CompleteMultipartUpload>",
            &nested,
            &format!("<CompleteMultipartUpload>{nested}"),
        ] {
            let problem = listed_parts(body.as_bytes(), 9).unwrap_err();
            assert_eq!(problem.code, "invalid-xml", "{body:.60}");
        }
        assert!(listed_parts(b"\xff", 9).is_err());
    }

    #[test]
    fn texts_are_escaped() {
        let document = Document::new("A", &element("B", "<&>\"'"));
        assert_eq!(
            document.0,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><A xmlns=\"{NAMESPACE}\"><B>&lt;&amp;&gt;&quot;&apos;</B></A>"
            )
        );
    }
}
