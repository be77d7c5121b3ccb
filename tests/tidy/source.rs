//! The repository as text, and Rust files with code, comments and string contents told apart.
//!
//! The scanner knows as much of Rust as the rules need: comments (nested), strings (raw too), characters and
//! lifetimes, braces. It is not a parser; what it cannot know, the rules do not ask.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are made by tools or belong to other tools.
const SKIPPED: &[&str] = &[".git", "target", "trine-data", "corpus", "artifacts"];

/// One text file.
pub struct Text {
    /// Path from the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// All text files of the repository.
pub struct Tree {
    /// Its root.
    pub root: PathBuf,
    /// Every file that is text.
    pub texts: Vec<Text>,
    /// The Rust files among them, scanned.
    pub sources: Vec<Source>,
}

impl Tree {
    /// Reads everything under `root`.
    pub fn read(root: &Path) -> Self {
        let mut texts = Vec::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of the repository can be listed") {
                let entry = entry.expect("an entry of the repository can be read");
                let kind = entry.file_type().expect("an entry of the repository has a type");
                let skipped = entry.file_name().to_str().is_none_or(|name| SKIPPED.contains(&name));
                if kind.is_dir() && !skipped {
                    folders.push(entry.path());
                } else if kind.is_file() && !skipped {
                    // What is not UTF-8 is no text of ours.
                    let Ok(text) = fs::read_to_string(entry.path()) else { continue };
                    let path = entry.path().strip_prefix(root).expect("it lies below").display().to_string();
                    texts.push(Text { path, text });
                }
            }
        }
        texts.sort_by(|a, b| a.path.cmp(&b.path));
        let rust = texts.iter().filter(|text| text.path.ends_with(".rs"));
        let mut sources: Vec<_> = rust.map(|text| Source::scan(&text.path, &text.text)).collect();
        let modules: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            source.mark_if_among(&modules);
        }
        Self { root: root.to_path_buf(), texts, sources }
    }
}

/// One line of Rust, taken apart.
#[derive(Default)]
pub struct Line {
    /// As written.
    pub raw: String,
    /// Without comments and without the contents of strings and characters.
    pub code: String,
    /// The comments.
    pub comment: String,
    /// Whether it belongs to tests.
    pub test: bool,
}

/// A function with a body.
pub struct Function {
    /// Its name.
    pub name: String,
    /// Index of the line with `fn`.
    pub first: usize,
    /// Index of the line with the closing brace.
    pub last: usize,
}

/// One Rust file.
pub struct Source {
    /// Path from the root.
    pub path: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Source {
    /// Takes `text` apart.
    pub fn scan(path: &str, text: &str) -> Self {
        let mut lines = split(text);
        for (line, raw) in lines.iter_mut().zip(text.lines()) {
            line.raw = raw.to_owned();
        }
        lines.truncate(text.lines().count());
        let mut source = Self { path: path.to_owned(), lines };
        source.mark_tests();
        source
    }

    /// True if the file stands in a folder that is compiled for tests or measurements only.
    fn is_test_file(&self) -> bool {
        let folders = ["tests/", "shards/tests/", "benches/", "fuzz/", "examples/", "bench/"];
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The modules in files of their own that this file declares for tests only, as paths without `.rs`.
    pub fn test_modules(&self) -> Vec<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or_default();
        let inner = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder,
            _ => self.path.trim_end_matches(".rs"),
        };
        let declarations = self.lines.iter().filter(|line| line.test && line.code.trim_end().ends_with(';'));
        declarations
            .flat_map(|line| words_after(&line.code, "mod"))
            .map(|module| format!("{inner}/{module}"))
            .collect()
    }

    /// Marks the whole file if it is one of `modules`, or of a module within one.
    pub fn mark_if_among(&mut self, modules: &[String]) {
        let is_among = modules.iter().any(|module| {
            let inner = self.path.strip_prefix(module.as_str());
            inner.is_some_and(|inner| inner == ".rs" || inner.starts_with('/'))
        });
        if is_among {
            self.lines.iter_mut().for_each(|line| line.test = true);
        }
    }

    /// Marks what stands under `#[cfg(test)]` or `#[test]`, to the end of the item.
    fn mark_tests(&mut self) {
        let whole = self.is_test_file();
        let mut index = 0;
        while index < self.lines.len() {
            let code = self.lines[index].code.trim_start();
            let begins =
                ["#[cfg(test)]", "#[cfg(all(test", "#[test]"].iter().any(|mark| code.starts_with(mark));
            let end = if begins { self.item_end(index) } else { index };
            for line in &mut self.lines[index..=end] {
                line.test = whole || begins;
            }
            index = end + 1;
        }
    }

    /// The last line of the item that begins at line `first`: the one that closes its braces, or ends it with
    /// `;`.
    fn item_end(&self, first: usize) -> usize {
        let mut depth = 0_usize;
        // Parentheses and brackets, so that the `;` of an array type does not end the item.
        let mut inner = 0_usize;
        for (index, line) in self.lines.iter().enumerate().skip(first) {
            for c in line.code.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    '(' | '[' => inner += 1,
                    ')' | ']' => inner = inner.saturating_sub(1),
                    _ => {}
                }
                let closed = (c == '}' || c == ';') && depth == 0 && inner == 0;
                if closed {
                    return index;
                }
            }
        }
        self.lines.len() - 1
    }

    /// Every function with a body, in order; nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (first, line) in self.lines.iter().enumerate() {
            let Some(name) = words_after(&line.code, "fn").next() else { continue };
            let last = self.item_end(first);
            // A function without a body ends with `;`, before any brace.
            if self.lines[first..=last].iter().any(|line| line.code.contains('{')) {
                functions.push(Function { name, first, last });
            }
        }
        functions
    }
}

/// The identifiers that follow the keyword `word` in `code`, separated by one space.
pub fn words_after<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = String> + 'a {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let rest = code[at + word.len()..].strip_prefix(' ')?;
        let name: String = rest.chars().take_while(|&c| ident(c)).collect();
        (!before.is_some_and(ident) && !name.is_empty()).then_some(name)
    })
}

/// Where the scanner is.
enum State {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    Text { hashes: Option<usize> },
}

/// Splits a file into lines of code and comment.
fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        if rest[0] == '\n' {
            lines.push(Line::default());
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            at += 1;
            continue;
        }
        let last = lines.len() - 1;
        at += step(rest, at.checked_sub(1).map(|i| chars[i]), &mut state, &mut lines[last]);
    }
    lines
}

/// Takes the next piece of a line; says how many characters it was.
fn step(rest: &[char], before: Option<char>, state: &mut State, line: &mut Line) -> usize {
    let starts = |with: &str| with.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    match *state {
        State::Code => return code_step(rest, before, state, line),
        State::LineComment => {}
        State::BlockComment { depth } if starts("*/") => {
            *state = if depth == 1 { State::Code } else { State::BlockComment { depth: depth - 1 } };
            return 2;
        }
        State::BlockComment { depth } if starts("/*") => {
            *state = State::BlockComment { depth: depth + 1 };
            return 2;
        }
        State::BlockComment { .. } => {}
        State::Text { hashes } => return text_step(rest, hashes, state, line),
    }
    line.comment.push(rest[0]);
    1
}

fn text_step(rest: &[char], hashes: Option<usize>, state: &mut State, line: &mut Line) -> usize {
    let closing = match hashes {
        None if rest[0] == '\\' && rest.get(1).is_some_and(|&c| c != '\n') => return 2,
        None => rest[0] == '"',
        Some(n) => rest[0] == '"' && rest.len() > n && rest[1..=n].iter().all(|&c| c == '#'),
    };
    if !closing {
        return 1;
    }
    line.code.push('"');
    *state = State::Code;
    1 + hashes.unwrap_or(0)
}

fn code_step(rest: &[char], before: Option<char>, state: &mut State, line: &mut Line) -> usize {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    let second = rest.get(1).copied();
    match (rest[0], second) {
        ('/', Some('/')) => {
            *state = State::LineComment;
            2
        }
        ('/', Some('*')) => {
            *state = State::BlockComment { depth: 1 };
            2
        }
        ('"', _) => {
            line.code.push('"');
            *state = State::Text { hashes: None };
            1
        }
        ('r', Some('"' | '#')) if !before.is_some_and(|c| ident(c) && c != 'b' && c != 'c') => {
            let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                line.code.push('r');
                return 1;
            }
            line.code.push('"');
            *state = State::Text { hashes: Some(hashes) };
            hashes + 2
        }
        // A character, unless it is a lifetime.
        ('\'', Some('\\')) => {
            line.code.push_str("' '");
            let end = rest.iter().skip(3).position(|&c| c == '\'').unwrap_or(0);
            end + 4
        }
        ('\'', Some(c)) if rest.get(2) == Some(&'\'') && c != '\n' => {
            line.code.push_str("' '");
            3
        }
        (c, _) => {
            line.code.push(c);
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<String> {
        Source::scan("src/a.rs", text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_and_contents_of_strings_are_no_code() {
        assert_eq!(codes("a(\"x // {\") // b\nc /* d /* e */ f\n g */ h"), ["a(\"\") ", "c ", " h"]);
        assert_eq!(codes("let r = r#\"a \" {\"#; r#type"), ["let r = \"\"; r#type"]);
        assert_eq!(
            codes("f(\"\\\"{\", b\"\\\\\", '\\'', '{', '\\u{7d}', &'a x)"),
            ["f(\"\", b\"\", ' ', ' ', ' ', &'a x)"]
        );
        assert_eq!(codes("\"one \\\n two\" {"), ["\"", "\" {"]);
    }

    #[test]
    fn test_modules_end_with_their_brace() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nuse x;\nfn d() {}";
        let test: Vec<_> = Source::scan("src/a.rs", text).lines.iter().map(|line| line.test).collect();
        assert_eq!(test, [false, true, true, true, true, false, true, true, false]);
        assert!(Source::scan("tests/a.rs", "fn a() {}").lines[0].test);
    }

    #[test]
    fn a_module_declared_for_tests_is_tests_with_its_file_and_its_folder() {
        let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\nmod c {}\n#[cfg(test)]\npub(crate) mod d;\n";
        let root = Source::scan("src/x/mod.rs", text);
        assert_eq!(root.test_modules(), ["src/x/b", "src/x/d"]);
        assert_eq!(Source::scan("src/x.rs", text).test_modules(), ["src/x/b", "src/x/d"]);
        let is_test = |path: &str| {
            let mut source = Source::scan(path, "fn f() {}");
            source.mark_if_among(&root.test_modules());
            source.lines[0].test
        };
        assert!(is_test("src/x/b.rs") && is_test("src/x/b/mod.rs") && is_test("src/x/d/e/f.rs"));
        assert!(!is_test("src/x/a.rs") && !is_test("src/x/bc.rs") && !is_test("src/y/b.rs"));
    }

    #[test]
    fn functions_are_found_with_their_extent() {
        let text = "trait T {\n fn a();\n}\nfn b(x: [u8; 2]) ->\n  u8\n{\n 1\n}\nlet fn_ = f; // fn c() {}";
        let functions = Source::scan("src/a.rs", text).functions();
        let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.first, f.last)).collect();
        assert_eq!(found, [("b", 3, 7)]);
    }
}
