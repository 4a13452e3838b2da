//! Any text frame of a player is decoded or answered, never a panic, and what is decoded keeps its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher::protocol::MAX_ID_BYTES;
use usher::protocol::client::{ClientMessage, decode};

fuzz_target!(|text: &str| {
    let frame = decode(text);
    if let Some(id) = frame.id {
        assert!(text.contains(id.get()));
    }
    match frame.message {
        Ok(ClientMessage::Switch { content }) => assert!((1..=MAX_ID_BYTES).contains(&content.len())),
        Ok(ClientMessage::Heartbeat { position_ms, .. }) => assert!(position_ms.is_none_or(|at| at <= 1 << 53)),
        Ok(_) => {}
        // It is written into a bounded buffer, and quotes nothing.
        Err(bad) => assert!(bad.detail.len() < 200),
    }
});
