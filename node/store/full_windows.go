package store

import "syscall"

// errQuota is ERROR_DISK_FULL, which syscall does not name.
const errQuota = syscall.Errno(112)
