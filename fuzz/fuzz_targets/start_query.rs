//! Any query string starts a play within its bounds or is refused by a named field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher::protocol::MAX_ID_BYTES;
use usher::protocol::start::Start;

fuzz_target!(|query: &str| {
    match Start::parse(query) {
        Ok(start) => {
            assert!((1..=MAX_ID_BYTES).contains(&start.content.len()));
            for text in [start.device, start.device_name, start.device_class].iter().flatten() {
                assert!((1..=MAX_ID_BYTES).contains(&text.len()));
            }
        }
        Err(bad) => assert!(!bad.field.is_empty() && bad.problem.len() < 200),
    }
});
