//! Names of the wire's codes, as they are shown in labels.

use std::borrow::Cow;

use crate::stats::Vocabulary;

/// The name of a code, lower case with underscores; `None` if the list has no such code.
pub type CodeName = fn(Vocabulary, u8) -> Option<&'static str>;

/// The codes of an array of counters that are worth showing, with their names: those that have a name, so
/// that a series exists before its first event, and those that were counted. The last place is "other".
pub(super) fn shown(
    code_name: CodeName,
    vocabulary: Vocabulary,
    counters: &[crate::stats::Counter],
) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
    let last = counters.len() - 1;
    counters.iter().enumerate().filter_map(move |(place, counter)| {
        let count = counter.get();
        let name =
            u8::try_from(place).ok().filter(|_| place != last).and_then(|code| code_name(vocabulary, code));
        match name {
            Some(name) => Some((Cow::Borrowed(name), count)),
            None if count == 0 => None,
            None if place == last => Some((Cow::Borrowed("other"), count)),
            None => Some((Cow::Owned(format!("code_{place}")), count)),
        }
    })
}

/// The name of a message class.
pub(super) fn class(code_name: CodeName, class: usize) -> Cow<'static, str> {
    let name = u8::try_from(class).ok().and_then(|code| code_name(Vocabulary::Class, code));
    name.map_or_else(|| Cow::Owned(format!("code_{class}")), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Coded;

    #[test]
    fn named_codes_are_always_shown_and_others_once_they_were_counted() {
        let name: CodeName = |_, code| (code == 1).then_some("stalled");
        let coded = Coded::<5>::default();
        let names = |coded: &Coded<5>| {
            shown(name, Vocabulary::Close, coded.counters())
                .map(|(n, c)| format!("{n}={c}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&coded), ["stalled=0"]);
        [1, 3, 4, 250].into_iter().for_each(|code| coded.inc(code));
        assert_eq!(names(&coded), ["stalled=1", "code_3=1", "other=2"]);
    }
}
