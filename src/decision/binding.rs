//! The binding of a token in a [`Pass`](super::Pass). A token without a binding takes no room and no time.

use super::packed::{Flag, Mark, Packed, Packing};
use crate::token::binding::{Binding, Thumbprint};

const KEY: u8 = b'k';
const CERTIFICATE: u8 = b'c';
const IGNORED: &str = "i";

/// Packs it. Returns whether there was anything to pack.
pub(super) fn pack(binding: Binding, packing: &mut Packing) -> bool {
    match binding {
        Binding::Bearer => return false,
        Binding::Ignored => packing.fact(IGNORED, Mark::Binding),
        Binding::Sender { key, certificate } => {
            for (kind, thumbprint) in [(KEY, key), (CERTIFICATE, certificate)] {
                if let Some(thumbprint) = thumbprint {
                    packing.fact(&format!("{}{thumbprint}", char::from(kind)), Mark::Binding);
                }
            }
        }
    }
    true
}

/// Unpacks it. Anything that cannot be read is [`Binding::UNKNOWN`], which nobody can prove.
pub(super) fn unpack(packed: &Packed) -> Binding {
    if !packed.head().is(Flag::HasBinding) {
        return Binding::Bearer;
    }
    let (mut key, mut certificate) = (None, None);
    for text in packed.marked(Mark::Binding) {
        let thumbprint = |text: &[u8]| std::str::from_utf8(text).ok().and_then(Thumbprint::parse);
        match text.split_first() {
            Some((&KEY, rest)) => key = thumbprint(rest),
            Some((&CERTIFICATE, rest)) => certificate = thumbprint(rest),
            _ if text == IGNORED.as_bytes() => return Binding::Ignored,
            _ => return Binding::UNKNOWN,
        }
    }
    Binding::Sender { key, certificate }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{identity, pass};
    use super::*;

    #[test]
    fn a_pass_tells_what_its_token_is_bound_to() {
        let thumbprints = [None, Some(Thumbprint::of(b"a")), Some(Thumbprint::of(b"b"))];
        let senders = thumbprints
            .into_iter()
            .flat_map(|key| thumbprints.map(|certificate| Binding::Sender { key, certificate }));
        for binding in [Binding::Bearer, Binding::Ignored].into_iter().chain(senders) {
            let mut who = identity(r#"{"scope":"k c i"}"#);
            who.binding = binding;
            assert_eq!(pass(&who, "").unwrap().binding(), binding);
        }
    }
}
