"""What the commands do: parse, call one function, print. Torch comes with the call."""
