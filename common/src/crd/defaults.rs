//! Defaults of spec fields, shared by the schema, the deserialiser and `Default`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::duration::GoDuration;

pub(super) const fn yes() -> bool {
    true
}

pub(super) const fn instances() -> u32 {
    3
}

pub(super) fn image() -> String {
    "mysql:9.7".to_owned()
}

pub(super) fn storage_size() -> Quantity {
    Quantity("10Gi".to_owned())
}

pub(super) const fn hang_after() -> GoDuration {
    GoDuration::from_millis(1500)
}

pub(super) const fn isolated_after() -> GoDuration {
    GoDuration::from_millis(1500)
}

pub(super) const fn max_changes() -> u32 {
    6
}

pub(super) const fn window() -> GoDuration {
    GoDuration::from_hours(1)
}

pub(super) const fn max_lag() -> GoDuration {
    GoDuration::from_secs(10)
}

pub(super) const fn flush_every() -> GoDuration {
    GoDuration::from_secs(1)
}

pub(super) const fn keep() -> GoDuration {
    GoDuration::from_hours(168)
}

pub(super) fn cert_manager() -> String {
    "cert-manager.io".to_owned()
}
