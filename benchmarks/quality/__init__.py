"""What ``make quality`` measures. A topic is a module here with ``measure(material) -> Section``; ``__main__`` runs them."""
