//! How each rule looks at one file.

use std::path::Path;

use crate::source::{Line, Source, Text};

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Breach {
    /// Line from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// The beginning of the paths to which an exception applies, and the reason for it.
pub type Place = (&'static str, &'static str);

fn is_among(source: &Source, places: &[Place]) -> bool {
    places.iter().any(|(prefix, _)| source.path.starts_with(prefix))
}

fn breach(index: usize, what: impl Into<String>) -> Breach {
    Breach { line: index + 1, what: what.into() }
}

fn numbered(source: &Source) -> impl Iterator<Item = (usize, &Line)> {
    source.lines.iter().enumerate()
}

/// Lines of more than `max` characters.
pub fn long_lines(source: &Source, max: usize) -> Vec<Breach> {
    let long = numbered(source).filter(|(_, line)| line.raw.chars().count() > max);
    long.map(|(index, line)| breach(index, format!("{} characters", line.raw.chars().count()))).collect()
}

/// A file of more than `max` lines.
pub fn long_file(source: &Source, max: usize) -> Vec<Breach> {
    let lines = source.lines.len();
    if lines > max { vec![breach(max, format!("{lines} lines; split it by purpose"))] } else { Vec::new() }
}

/// Functions of more than `max` lines.
pub fn long_functions(source: &Source, max: usize) -> Vec<Breach> {
    let long = source.functions().into_iter().filter(|f| f.last - f.first + 1 > max);
    long.map(|f| breach(f.first, format!("fn {} has {} lines", f.name, f.last - f.first + 1))).collect()
}

/// Lines whose code or comment contains one of `words`, not as part of a longer name.
pub fn words(source: &Source, words: &[&str]) -> Vec<Breach> {
    let found = |line: &Line, word: &str| has_word(&line.code, word) || has_word(&line.comment, word);
    let breaches = numbered(source).flat_map(|(index, line)| {
        words.iter().filter(move |word| found(line, word)).map(move |word| breach(index, (*word).to_owned()))
    });
    breaches.collect()
}

/// Whether `word` stands in `text` by itself.
fn has_word(text: &str, word: &str) -> bool {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(ident);
        let after = text[at + word.len()..].chars().next().is_some_and(ident);
        let ends_open = word.ends_with(|c| !ident(c));
        !before && (ends_open || !after)
    })
}

/// Whether a comment with `mark` stands on the line or directly above it, where more lines of comment,
/// attributes and the beginning of the same statement may stand between.
fn explained(source: &Source, index: usize, mark: &str) -> bool {
    if source.lines[index].comment.contains(mark) {
        return true;
    }
    let above = source.lines[..index].iter().rev().take_while(|line| {
        let code = line.code.trim();
        !line.raw.trim().is_empty() && !code.ends_with([';', '}'])
    });
    above.take(12).any(|line| line.comment.contains(mark))
}

/// `unwrap` and `expect` outside tests without a comment that says why they cannot fail.
pub fn unexplained_panics(source: &Source) -> Vec<Breach> {
    let panics = |line: &Line| [".unwrap()", ".expect("].iter().any(|call| line.code.contains(call));
    let unexplained =
        |&(index, line): &(usize, &Line)| !line.test && panics(line) && !explained(source, index, "PANIC:");
    let what = "may panic; return an error, or prove in a `// PANIC:` comment above that it cannot";
    numbered(source).filter(unexplained).map(|(index, _)| breach(index, what)).collect()
}

/// `unsafe` outside `allowed`, or without a comment that says why it is sound.
pub fn unsafe_code(source: &Source, allowed: &[Place]) -> Vec<Breach> {
    let here = is_among(source, allowed);
    let lines = numbered(source).filter(|(_, line)| has_word(&line.code, "unsafe"));
    lines
        .filter_map(|(index, _)| {
            if !here {
                return Some(breach(index, "unsafe may not stand in this file"));
            }
            let sound = explained(source, index, "SAFETY:") || explained(source, index, "# Safety");
            (!sound).then(|| breach(index, "say in a `// SAFETY:` comment above why this is sound"))
        })
        .collect()
}

/// Code that names one of `names` outside `allowed`.
pub fn names(source: &Source, names: &[&str], allowed: &[Place]) -> Vec<Breach> {
    if is_among(source, allowed) {
        return Vec::new();
    }
    let places: Vec<_> = allowed.iter().map(|(place, _)| *place).collect();
    let lines = numbered(source).flat_map(|(index, line)| {
        names.iter().filter(move |name| has_word(&line.code, name)).map(move |name| (index, name))
    });
    lines
        .map(|(index, name)| breach(index, format!("{name} may be named in {} only", places.join(", "))))
        .collect()
}

/// A file without a header, or a public item without a doc comment.
pub fn undocumented(source: &Source) -> Vec<Breach> {
    let headed = source.lines.iter().find(|line| !line.raw.trim().is_empty());
    let mut breaches = Vec::new();
    if !headed.is_some_and(|line| line.raw.starts_with("//!")) {
        breaches.push(breach(0, "begin the file with `//!`: purpose, promise, failure model, caller"));
    }
    let items = numbered(source).filter(|(_, line)| !line.test && is_public_item(&line.code));
    let bare = items.filter(|&(index, _)| !documented(source, index));
    breaches.extend(bare.map(|(index, line)| breach(index, format!("no doc comment: {}", line.code.trim()))));
    breaches
}

/// Whether `code` begins a public item. A `pub mod name;` is documented by the header of its file, and an
/// item whose name a macro is given (`$name`) where the macro is used.
fn is_public_item(code: &str) -> bool {
    const KINDS: &[&str] = &["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "union"];
    const QUALIFIERS: &[&str] = &["unsafe", "async", "extern", "\"\"", "const"];
    let Some(rest) = code.trim_start().strip_prefix("pub ") else { return false };
    let mut words = rest.split_whitespace();
    let kind = words.find(|word| !QUALIFIERS.contains(word) || KINDS.contains(word));
    let named_by_macro = words.next().is_some_and(|name| name.starts_with('$'));
    kind.is_some_and(|kind| KINDS.contains(&kind))
        && !named_by_macro
        && !(kind == Some("mod") && code.trim_end().ends_with(';'))
}

/// Whether a doc comment stands above line `index`, with attributes between at most.
fn documented(source: &Source, index: usize) -> bool {
    let above = source.lines[..index].iter().rev();
    let mut not_attributes = above.skip_while(|line| {
        let code = line.code.trim();
        line.comment.is_empty() && (code.starts_with("#[") || code.ends_with(")]") || code == "]")
    });
    not_attributes.next().is_some_and(|line| {
        let raw = line.raw.trim_start();
        raw.starts_with("///") || raw.starts_with("#[doc")
    })
}

/// Which module may import which.
pub struct Imports {
    layers: &'static [&'static [&'static str]],
}

impl Imports {
    /// `layers` from the lowest to the highest.
    pub fn new(layers: &'static [&'static [&'static str]]) -> Self {
        Self { layers }
    }

    fn layer(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.contains(&module))
    }

    /// Imports of a higher or a neighbouring module in a file of the node's library.
    pub fn check(&self, source: &Source) -> Vec<Breach> {
        let Some(inner) = source.path.strip_prefix("src/") else { return Vec::new() };
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" || module == "main" {
            return Vec::new();
        }
        let Some(own) = self.layer(module) else {
            return vec![breach(0, format!("module {module} has no layer yet: add it to LAYERS"))];
        };
        let lines = numbered(source).filter(|(_, line)| !line.test);
        let imports =
            lines.flat_map(|(index, line)| imported(&line.code).into_iter().map(move |name| (index, name)));
        imports
            .filter(|(_, name)| name != module && self.layer(name).is_some_and(|layer| layer >= own))
            .map(|(index, name)| breach(index, format!("{module} may not import {name}: it is not below it")))
            .collect()
    }
}

/// The top modules that `code` reaches with `crate::name` or `crate::{name, …}`.
fn imported(code: &str) -> Vec<String> {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &str| text.trim_start().chars().take_while(|&c| ident(c)).collect::<String>();
    let mut names = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0_i32;
                let parts = list.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                });
                names.extend(parts.map(name));
            }
            None => names.push(name(rest)),
        }
    }
    names
}

/// Relative links to files that do not exist.
pub fn dead_links(text: &Text, root: &Path) -> Vec<Breach> {
    let folder = root.join(&text.path).parent().map(Path::to_path_buf).unwrap_or_default();
    let lines = text.text.lines().enumerate();
    lines
        .flat_map(|(index, line)| links(line).map(move |link| (index, link)))
        .filter(|(_, link)| !link.contains("://") && !link.starts_with("mailto:") && !link.starts_with('#'))
        .filter(|(_, link)| !folder.join(link.split('#').next().unwrap_or_default()).exists())
        .map(|(index, link)| breach(index, format!("{link} does not exist")))
        .collect()
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, mark)| {
        let rest = &line[at + mark.len()..];
        rest.split_once(')').map(|(target, _)| target.split_whitespace().next().unwrap_or_default())
    })
}

/// Lines that contain one of `words`.
pub fn local_words(text: &Text, words: &[&str]) -> Vec<Breach> {
    let lines = text.text.lines().enumerate();
    let found = lines.flat_map(|(index, line)| {
        words.iter().filter(move |word| line.contains(**word)).map(move |word| (index, word))
    });
    found.map(|(index, word)| breach(index, format!("names {word}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(breaches: &[Breach]) -> Vec<usize> {
        breaches.iter().map(|breach| breach.line).collect()
    }

    fn scan(text: &str) -> Source {
        Source::scan("src/link/a.rs", text)
    }

    #[test]
    fn long_lines_files_and_functions_are_found() {
        let source = scan("fn a() {\n b();\n c();\n}\n// longest of all\n");
        assert_eq!(lines_of(&long_lines(&source, 10)), [5]);
        assert_eq!(lines_of(&long_file(&source, 4)), [5]);
        assert_eq!(lines_of(&long_functions(&source, 3)), [1]);
        assert!(long_functions(&source, 4).is_empty());
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments_but_not_in_strings() {
        let source = scan("later!();\n// LATER: x\nf(\"LATER\");\n// LATERAL\n#[skip = \"x\"]\n");
        assert_eq!(lines_of(&words(&source, &["later!", "LATER", "#[skip"])), [1, 2, 5]);
    }

    #[test]
    fn panics_need_an_explanation_outside_tests() {
        let source = scan(
            "a.unwrap();\nb.expect(\"\"); // PANIC: never\n// PANIC: never\nlet c = d\n    .e()\n .unwrap();\
             \nf.unwrap();\n#[test]\nfn g() {\n h.unwrap();\n}\n",
        );
        assert_eq!(lines_of(&unexplained_panics(&source)), [1, 7]);
    }

    #[test]
    fn unsafe_needs_its_place_and_its_reason() {
        let source =
            scan("// SAFETY: fine\nunsafe { a() };\nunsafe { b() };\n#![deny(unsafe_op_in_unsafe_fn)]\n");
        assert_eq!(lines_of(&unsafe_code(&source, &[("src/link/", "why")])), [3]);
        assert_eq!(lines_of(&unsafe_code(&source, &[("src/rt/", "why")])), [2, 3]);
    }

    #[test]
    fn the_ring_is_named_in_its_place_only() {
        let source = scan("use ring_x::Ring; // ring_x\nlet ring_xy = 1;\n");
        assert_eq!(lines_of(&names(&source, &["ring_x"], &[("src/rt/", "why")])), [1]);
        assert!(names(&source, &["ring_x"], &[("src/link/", "why")]).is_empty());
    }

    #[test]
    fn public_items_and_files_need_words() {
        let source = scan(
            "//! Header.\npub mod a;\npub fn b() {}\n/// Doc.\n#[inline]\npub const fn c() {}\n#[derive(X)]\n\
             pub struct D;\npub(crate) fn e() {}\npub use f::g;\n    pub unsafe fn h() {}\n",
        );
        assert_eq!(lines_of(&undocumented(&source)), [3, 8, 11]);
        assert_eq!(lines_of(&undocumented(&scan("use a;\n"))), [1]);
    }

    #[test]
    fn imports_go_down_the_street_only() {
        let imports = Imports::new(&[&["rt"], &["wire"], &["link"], &["relay", "mesh"]]);
        let source = scan(
            "use crate::{rt::{api, x}, relay};\nuse crate::wire::A;\nuse crate::link::b;\ncrate::mesh::c();\n\
             #[cfg(test)]\nuse crate::relay::d;\n",
        );
        assert_eq!(lines_of(&imports.check(&source)), [1, 4]);
        let neighbour = Source::scan("src/relay/a.rs", "use crate::mesh::x;\n");
        assert_eq!(lines_of(&imports.check(&neighbour)), [1]);
        let unknown = Source::scan("src/new.rs", "");
        assert_eq!(lines_of(&imports.check(&unknown)), [1]);
    }

    #[test]
    fn dead_links_and_local_words_are_found() {
        let page =
            "[a](Cargo.toml) [b](none.md)\n[c](https://x.y/z) [d](#e) [f](src/lib.rs#L1)\nat /local/x\n";
        let text = Text { path: "README.md".into(), text: page.into() };
        assert_eq!(lines_of(&dead_links(&text, Path::new(env!("CARGO_MANIFEST_DIR")))), [1]);
        assert_eq!(lines_of(&local_words(&text, &["/local/"])), [3]);
    }
}
