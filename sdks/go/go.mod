module skald.internal/client

go 1.22
