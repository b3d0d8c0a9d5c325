"""Networks in pure torch whose module trees and state-dict names equal the published ones."""
