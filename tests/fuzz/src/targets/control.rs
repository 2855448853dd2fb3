//! Control messages in both directions: one form for each, and no other bytes mean anything.

use r_tftpd_broker::control::{Order, Report, SIZE};

/// Reads the bytes as an order and as a report, also a byte shorter and longer.
pub fn run(data: &[u8]) {
    if let Ok(order) = Order::from_bytes(data) {
        assert_eq!(order.to_bytes(), data, "an order with two forms");
        neighbours(data, |bytes| Order::from_bytes(bytes).is_ok());
    }
    if let Ok(report) = Report::from_bytes(data) {
        assert_eq!(report.to_bytes(), data, "a report with two forms");
        neighbours(data, |bytes| Report::from_bytes(bytes).is_ok());
    }
    // The fuzzer's bytes are seldom as long as a message: the same, cut or filled up.
    let mut message = data.to_vec();
    message.resize(SIZE, 0);
    if let Ok(order) = Order::from_bytes(&message) {
        assert_eq!(order.to_bytes(), *message, "an order with two forms");
    }
    if let Ok(report) = Report::from_bytes(&message) {
        assert_eq!(report.to_bytes(), *message, "a report with two forms");
    }
}

fn neighbours(data: &[u8], is_read: fn(&[u8]) -> bool) {
    assert!(
        !is_read(&data[1..]) && !is_read(&[data, &[0]].concat()),
        "a message of another length"
    );
}
