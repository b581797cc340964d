"""What tests share: agents, Managers, networks, browsers and machines to test with."""
