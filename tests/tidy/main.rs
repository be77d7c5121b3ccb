//! Keeps the repository tidy: what every reader may rely on is checked, not hoped for.
//!
//! Each rule is one test that lists every place where it is broken. The numbers and tables stand here;
//! `source` tells code from comments and text, `rules` says how each rule looks at a file. To change a rule,
//! change its table.

mod rules;
mod source;

use std::path::Path;

use rules::{Breach, Imports, Place};
use source::{Source, Tree};

/// Longest line of Rust, in characters.
const LINE_CHARS_MAX: usize = 110;
/// Longest file of Rust.
const FILE_LINES_MAX: usize = 800;
/// Longest function, from its first line to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Where `unsafe` may stand, and why there.
const UNSAFE_ALLOWED: &[Place] = &[
    ("src/rt/", "the kernel is given pointers"),
    ("shards/src/buffer.rs", "memory aligned for direct I/O"),
    ("shards/src/code/kernel/", "vector instructions"),
    ("bench/src/alloc.rs", "an allocator that counts"),
    ("bench/src/scenario/erasure/isal.rs", "calls a library of C"),
    ("tests/link_alloc.rs", "an allocator that counts"),
    ("tests/loom_crossing.rs", "loom's side of the cells that the crossings share"),
    ("tests/rt_disk.rs", "mounts a file system that is soon full"),
    ("tests/store_faults/meta.rs", "gives the kernel a filter of system calls"),
    ("examples/measure_runtime/disk.rs", "measures a bare ring"),
];
/// Where the executor and the ring may be named, and why there.
const RUNTIME_ALLOWED: &[Place] =
    &[("src/rt/", "it is the runtime"), ("examples/measure_runtime/disk.rs", "measures a bare ring")];
const RUNTIME_NAMES: &[&str] = &["glommio", "io_uring"];

/// Unfinished work. Looked for in code and in comments.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME", "XXX", "TODO", "#[ignore"];

/// The street that data walks, lowest first. A module may import from the rows above its own in this table,
/// never from its own row's neighbours, nor from below.
const LAYERS: &[&[&str]] = &[
    &["stats", "config"],
    &["rt"],
    &["wire"],
    &["link"],
    &["relay", "mesh", "dht"],
    &["client"],
    &["node", "admin"],
    &["sim"],
    &["cli"],
];

/// Words that belong to one machine and not into a repository.
const LOCAL_WORDS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("proxy.gol", "ang.org"),
];

fn tree() -> Tree {
    Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// Looks at every Rust file with `rule` and fails with the list of what it found.
#[track_caller]
fn every_source(rule: impl Fn(&Source) -> Vec<Breach>) {
    let tree = tree();
    assert!(tree.sources.len() > 20, "the walk found only {} files", tree.sources.len());
    report(tree.sources.iter().flat_map(|source| {
        rule(source).into_iter().map(|breach| format!("{}:{}: {}", source.path, breach.line, breach.what))
    }));
}

#[track_caller]
fn report(breaches: impl Iterator<Item = String>) {
    let breaches: Vec<_> = breaches.collect();
    assert!(breaches.is_empty(), "{} place(s) to tidy:\n  {}", breaches.len(), breaches.join("\n  "));
}

#[test]
fn lines_fit_beside_each_other_on_a_screen() {
    every_source(|source| rules::long_lines(source, LINE_CHARS_MAX));
}

#[test]
fn files_can_be_read_in_one_sitting() {
    every_source(|source| rules::long_file(source, FILE_LINES_MAX));
}

#[test]
fn functions_fit_on_a_screen() {
    every_source(|source| rules::long_functions(source, FUNCTION_LINES_MAX));
}

#[test]
fn nothing_is_left_unfinished() {
    every_source(|source| rules::words(source, UNFINISHED));
}

#[test]
fn a_panic_outside_tests_is_explained() {
    every_source(rules::unexplained_panics);
}

#[test]
fn unsafe_stands_where_it_may_and_says_why_it_is_sound() {
    every_source(|source| rules::unsafe_code(source, UNSAFE_ALLOWED));
}

#[test]
fn only_the_runtime_names_its_executor_and_its_ring() {
    every_source(|source| rules::names(source, RUNTIME_NAMES, RUNTIME_ALLOWED));
}

#[test]
fn every_exception_to_a_rule_is_for_a_place_that_exists() {
    let root = tree().root;
    let exceptions = UNSAFE_ALLOWED.iter().chain(RUNTIME_ALLOWED);
    let gone = exceptions.filter(|(place, reason)| reason.is_empty() || !root.join(place).exists());
    report(gone.map(|(place, _)| format!("{place}: take it out of the table")));
}

#[test]
fn every_file_and_public_item_says_what_it_is() {
    every_source(rules::undocumented);
}

#[test]
fn no_module_calls_back_up_the_street() {
    let imports = Imports::new(LAYERS);
    every_source(|source| imports.check(source));
}

#[test]
fn links_in_documents_lead_somewhere() {
    let tree = tree();
    report(tree.texts.iter().filter(|text| text.path.ends_with(".md")).flat_map(|text| {
        let dead = rules::dead_links(text, &tree.root);
        dead.into_iter().map(|breach| format!("{}:{}: {}", text.path, breach.line, breach.what))
    }));
}

#[test]
fn no_text_names_one_particular_machine() {
    // The lock file names the registry of every package by design.
    let tree = tree();
    report(tree.texts.iter().filter(|text| !text.path.ends_with("Cargo.lock")).flat_map(|text| {
        let local = rules::local_words(text, LOCAL_WORDS);
        local.into_iter().map(|breach| format!("{}:{}: {}", text.path, breach.line, breach.what))
    }));
}
