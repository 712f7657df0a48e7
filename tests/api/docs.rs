//! The documentation names what exists: variables, problems and links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use presignd::config::VARIABLES;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");

/// Every Markdown page that a reader of the repository finds.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                pages.push((path, text));
            }
        }
    }
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The anchors of a page's headings, as GitHub makes them.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let kept: String = heading.chars().filter(kept).collect();
            kept.replace(' ', "-")
        })
        .collect()
}

#[test]
fn the_configuration_page_lists_all_variables() {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    // The names are in the first column of the table.
    let of_page: BTreeSet<&str> = CONFIGURATION
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter(|name| is_name(name))
        .collect();
    assert_eq!(of_page, VARIABLES.iter().copied().collect());
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut seen = 0;
    for (path, text) in pages() {
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{link} in {}", path.display());
            if !anchor.is_empty() {
                let page = std::fs::read_to_string(&target).unwrap();
                let known = anchors(&page).contains(anchor);
                assert!(known, "{link} in {}", path.display());
            }
        }
    }
    assert!(seen > 40, "{seen} links");
}
