//! The types whose files run no scripts in a browser.

/// Whether this is the essence of raster images, audio, video, fonts, 3D models, plain text, or of
/// documents and archives that browsers show without scripts, or save.
pub(super) fn is_harmless(essence: &str) -> bool {
    const TEXT: [&str; 8] = [
        "plain",
        "csv",
        "tab-separated-values",
        "markdown",
        "calendar",
        "vcard",
        "vtt",
        "rtf",
    ];
    const APPLICATION: [&str; 35] = [
        "octet-stream",
        "pdf",
        "json",
        "x-ndjson",
        "jsonl",
        "rtf",
        "msword",
        "epub+zip",
        "zip",
        "x-zip-compressed",
        "gzip",
        "x-gzip",
        "zstd",
        "x-tar",
        "x-gtar",
        "x-bzip",
        "x-bzip2",
        "x-xz",
        "x-7z-compressed",
        "x-rar",
        "x-rar-compressed",
        "vnd.rar",
        "java-archive",
        "vnd.android.package-archive",
        "x-apple-diskimage",
        "x-iso9660-image",
        "x-sqlite3",
        "vnd.sqlite3",
        "vnd.apache.parquet",
        "vnd.ms-excel",
        "vnd.ms-powerpoint",
        "vnd.ms-outlook",
        "vnd.ms-fontobject",
        "ogg",
        "cbor",
    ];
    /// Families of office documents, each a zip archive.
    const OFFICE: [&str; 6] = [
        "vnd.openxmlformats-officedocument.",
        "vnd.oasis.opendocument.",
        "vnd.ms-excel.",
        "vnd.ms-word.",
        "vnd.ms-powerpoint.",
        "vnd.apple.",
    ];
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    let is_markup = ["+xml", "svg", "html", "script", "-xml"]
        .iter()
        .any(|markup| subtype.contains(markup));
    match kind {
        "image" | "audio" | "video" | "font" | "model" => !is_markup && subtype != "xml",
        "text" => TEXT.contains(&subtype),
        "application" => {
            APPLICATION.contains(&subtype)
                || (!is_markup && OFFICE.iter().any(|office| subtype.starts_with(office)))
        }
        _ => false,
    }
}
