//! A limit on how many things of one owner exist at once: connections of an address, requests of a user.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

/// Counts things by owner. Owners without any take no memory.
#[derive(Debug)]
pub struct KeyedLimit<K> {
    limit: usize,
    counts: Mutex<HashMap<K, usize>>,
}

impl<K: Copy + Eq + Hash> KeyedLimit<K> {
    /// At most `limit` for each owner; `None` when it is 0, which means no limit.
    pub fn new(limit: usize) -> Option<Arc<KeyedLimit<K>>> {
        (limit > 0).then(|| Arc::new(KeyedLimit { limit, counts: Mutex::default() }))
    }

    /// One more for `owner`; `None` when the limit is reached.
    pub fn acquire(self: &Arc<Self>, owner: K) -> Option<KeyedPermit<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(owner).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(KeyedPermit { limit: Arc::clone(self), owner })
    }
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct KeyedPermit<K: Copy + Eq + Hash> {
    limit: Arc<KeyedLimit<K>>,
    owner: K,
}

impl<K: Copy + Eq + Hash> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        let mut counts = self.limit.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

/// The owner that an address stands for: an IPv4 address, or the /64 network of an IPv6 address, which is what one
/// customer of a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AddressGroup(IpAddr);

impl AddressGroup {
    /// `None` for addresses that are exempt from limits: loopback and trusted proxies, which stand for many clients.
    pub(super) fn of(address: IpAddr, trusted_proxies: &[IpNet]) -> Option<AddressGroup> {
        let address = address.to_canonical();
        if address.is_loopback() || is_trusted(address, trusted_proxies) {
            return None;
        }
        Some(AddressGroup(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        }))
    }
}

/// Whether an address is one of these proxies.
pub(super) fn is_trusted(address: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Counts one more thing of an address. `None` where there is no limit, or the address is exempt.
///
/// # Errors
/// The limit of this address is reached.
pub(super) fn acquire_of_address(
    limit: Option<&Arc<KeyedLimit<AddressGroup>>>,
    address: IpAddr,
    trusted_proxies: &[IpNet],
) -> Result<Option<KeyedPermit<AddressGroup>>, AddressLimitError> {
    let Some(limit) = limit else { return Ok(None) };
    let Some(group) = AddressGroup::of(address, trusted_proxies) else { return Ok(None) };
    limit.acquire(group).map(Some).ok_or(AddressLimitError)
}

/// An address has as many of something as it may.
#[derive(Debug)]
pub(super) struct AddressLimitError;

/// The client behind trusted proxies: the rightmost address of the `X-Forwarded-For` fields that is not a trusted proxy.
/// `fields`: their values in order. `None` when there is none, or what is there is not an address.
pub(super) fn forwarded_client<'v>(
    fields: impl DoubleEndedIterator<Item = &'v [u8]>,
    trusted_proxies: &[IpNet],
) -> Option<IpAddr> {
    let items = fields.rev().flat_map(|field| field.rsplit(|byte| *byte == b','));
    for item in items {
        let address = address_of(std::str::from_utf8(item).ok()?.trim())?.to_canonical();
        if !is_trusted(address, trusted_proxies) {
            return Some(address);
        }
    }
    None
}

/// An address, with or without a port; an IPv6 address also in brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn group(address: &str) -> Option<AddressGroup> {
        AddressGroup::of(address.parse().unwrap(), &trusted())
    }

    #[test]
    fn each_owner_has_a_limit_of_its_own_and_gets_it_back() {
        let limit = KeyedLimit::new(2).unwrap();
        let (first, _second, _other) =
            (limit.acquire(1).unwrap(), limit.acquire(1).unwrap(), limit.acquire(2).unwrap());
        assert!(limit.acquire(1).is_none());
        drop(first);
        drop(limit.acquire(1).unwrap());
        assert!(KeyedLimit::<i64>::new(0).is_none(), "0 is no limit");
        drop((_second, _other));
        assert!(limit.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn addresses_are_grouped_as_one_customer_has_them() {
        assert_ne!(group("203.0.113.1"), group("203.0.113.2"));
        assert_eq!(group("2001:db8:1:2::1"), group("2001:db8:1:2:ffff::1"));
        assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
        assert_eq!(group("::ffff:203.0.113.1"), group("203.0.113.1"));
        for exempt in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            assert_eq!(group(exempt), None, "{exempt}");
        }
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        for (fields, client) in [
            (vec!["203.0.113.7"], Some("203.0.113.7")),
            (vec!["198.51.100.1, 203.0.113.7, 10.0.0.2"], Some("203.0.113.7")),
            (vec!["198.51.100.1", "203.0.113.7", "10.0.0.2"], Some("203.0.113.7")),
            (vec!["198.51.100.1, unknown, 10.0.0.2"], None),
            (vec!["203.0.113.7:41234, 10.0.0.2:80"], Some("203.0.113.7")),
            (vec!["[2001:db8::7]:443"], Some("2001:db8::7")),
            (vec!["[2001:db8::7]"], Some("2001:db8::7")),
            (vec!["10.0.0.2"], None),
            (vec![], None),
        ] {
            let found = forwarded_client(fields.iter().map(|field| field.as_bytes()), &trusted());
            assert_eq!(found, client.map(|client| client.parse().unwrap()), "{fields:?}");
        }
    }
}
