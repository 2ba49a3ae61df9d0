//! What every backend, layer and remote has to keep, and what is its own. One program: a file of its own would be linked
//! and run alone. What several files use is in `support` and `gha_support`.

mod backends;
mod disk_killed;
mod disk_places;
mod faults;
mod gha_fake;
mod gha_faults;
mod gha_official;
mod gha_remote;
mod gha_rights;
mod gha_suite;
mod gha_support;
mod layers;
mod objects_azure;
mod objects_backend;
mod objects_faults;
mod proxy;
mod remote_collect;
mod remote_kiln;
mod remote_objects;
mod remote_objects_bucket;
mod remote_objects_evil;
mod remote_objects_model;
mod remote_objects_suite;
mod remote_objects_together;
mod support;
