package hostapi

func testService(mode string) error { return nil }
