//! What a page of the manual shows, as it stands there.

use super::yaml::in_repository;

/// The blocks of a language below a heading of a page.
pub fn blocks_of(page: &str, heading: &str, language: &str) -> Vec<String> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The blocks for a shell below a heading of a page of the repository.
pub fn blocks(page: &str, heading: &str) -> Vec<String> {
    blocks_of(&std::fs::read_to_string(in_repository(page)).unwrap(), heading, "sh")
}
