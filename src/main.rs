//! Boot order.

fn main() {}
