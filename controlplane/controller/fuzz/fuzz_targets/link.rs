//! Any bytes as what comes on a link: frames, messages, bundles.
//!
//! ```text
//! cd controlplane/controller
//! cargo +nightly fuzz run link -- -max_total_time=300 -max_len=16384
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_controlplane::link::message::Delivery;
use penstock_controlplane::link::{Bundle, Contents, Message, frame};
use penstock_controlplane::pki::Token;
use penstock_controlplane::pki::identity::Card;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((kind, payload, after))) = frame::split(rest, frame::MOST_OF_A_STRANGER) {
        rest = after;
        let Ok(Some(message)) = Message::decode(kind, payload) else { continue };
        // What was read is what is written.
        let (kind, head, tail) = message.encode();
        let again = Message::decode(kind, &[&head[..], tail].concat());
        assert_eq!(again.as_ref(), Ok(&Some(message.clone())));
        if let Message::Bundle(Delivery { bundle, .. }) = message {
            let _ = bundle.contents();
        }
    }
    // The same bytes as a body: what is taken is what a bundle of it says.
    if let Ok(contents) = Contents::read(bytes) {
        let bundle = Bundle::pack(1, &contents.body()).unwrap();
        let again = bundle.contents().unwrap();
        assert_eq!((&again.objects, &again.listeners), (&contents.objects, &contents.listeners));
    }
    let _ = Card::of(bytes);
    if let Ok(token) = std::str::from_utf8(bytes).unwrap_or_default().parse::<Token>() {
        assert_eq!(token.to_string().parse::<Token>().as_ref(), Ok(&token));
    }
});
