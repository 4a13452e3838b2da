//! Any start of a connection is a header, the beginning of one, or refused; what is asked for next makes progress.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher::net::proxy_protocol::{Parsed, parse};

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(Parsed::Partial { needed }) => assert!(needed > bytes.len() && needed <= 16 + 536),
        Ok(Parsed::Complete { length, .. }) => {
            assert!(length <= bytes.len());
            // Nothing behind the header changes it.
            assert!(matches!(parse(&bytes[..length]), Ok(Parsed::Complete { length: again, .. }) if again == length));
        }
        Err(_) => {}
    }
});
