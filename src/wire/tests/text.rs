//! Text forms: one per identifier, and a typing mistake is noticed.

use crate::wire::*;

const ADDRESS: &str = "trine1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0s7jrwjv";

fn address() -> Address {
    Address(std::array::from_fn(|index| index as u8))
}

#[test]
fn text_forms_are_the_committed_ones_and_read_back() {
    assert_eq!(address().to_string(), ADDRESS);
    assert_eq!(ADDRESS.parse(), Ok(address()));
    assert_eq!(ADDRESS.to_uppercase().parse(), Ok(address()));
    let node = NodeId(address().0);
    assert!(node.to_string().starts_with("trinenode1"));
    assert_eq!(node.to_string().parse(), Ok(node));
    assert!(include_str!("../../../docs/WIRE.md").contains(ADDRESS));
    assert!(include_str!("../../../docs/WIRE.md").contains(&node.to_string()));
}

#[test]
fn every_single_typing_mistake_is_refused() {
    for at in 0..ADDRESS.len() {
        for wrong in ['q', 'p', 'z', '7', 'x', 'b', '1', ' ', 'Q'] {
            let mut text: Vec<char> = ADDRESS.chars().collect();
            if text[at] == wrong {
                continue;
            }
            text[at] = wrong;
            let text: String = text.into_iter().collect();
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

#[test]
fn a_text_of_another_kind_or_length_is_refused_with_the_reason() {
    let node = NodeId(address().0).to_string();
    assert_eq!(
        node.parse::<Address>(),
        Err(IdTextError::WrongPrefix { expected: "address", prefix: "trine" })
    );
    assert!(matches!(ADDRESS.parse::<NodeId>(), Err(IdTextError::WrongPrefix { .. })));
    let hrp = bech32::Hrp::parse_unchecked("trine");
    let short = bech32::encode::<bech32::Bech32m>(hrp, &[1; 31]).unwrap();
    assert!(matches!(short.parse::<Address>(), Err(IdTextError::WrongLength { .. })));
    let old_checksum = bech32::encode::<bech32::Bech32>(hrp, &[1; 32]).unwrap();
    assert!(matches!(old_checksum.parse::<Address>(), Err(IdTextError::Malformed { .. })));
    for text in ["", "trine1", "trine", &"trine1".repeat(1000)] {
        assert!(matches!(text.parse::<Address>(), Err(IdTextError::Malformed { .. })));
    }
}

#[test]
fn debug_output_does_not_reveal_an_address() {
    assert_eq!(format!("{:?}", address()), "Address(0001..)");
}
