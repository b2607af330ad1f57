module certrotation.dev/tests/cluster/runc-wrapper

go 1.24.0
