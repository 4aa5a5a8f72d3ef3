"""Where events come from: simulated venues and recorded files look the same from here on."""
