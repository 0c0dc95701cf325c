"""Everything that talks to something: files, replicas, Consul, xDS clients."""
