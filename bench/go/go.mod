module migration-guard/bench

go 1.22
