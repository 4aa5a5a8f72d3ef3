"""How other libraries send the same messages to many clients: programs that `bench fanout` measures beside ours."""
