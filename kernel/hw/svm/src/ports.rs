//! The I/O permission map (APM 15.10.1): every port exits.

/// Bytes in the map: three pages, of which the third holds the bits past port
/// FFFFh that a wide access to the last ports reaches.
pub const MAP_BYTES: usize = 0x3000;

/// Fills the map: a set bit makes an access to its port exit.
pub fn fill(map: &mut [u8; MAP_BYTES]) {
    map.fill(0xFF);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_exits() {
        let mut map = [0; MAP_BYTES];
        fill(&mut map);
        for port in 0..0x1_0000 + 3 {
            assert_ne!(map[port / 8] & 1 << (port % 8), 0, "{port:x}");
        }
    }
}
